'use strict';
// The worker thread of png.ts. It is JavaScript, so that it runs from lib/ (in tests) and from dist/.
const { parentPort } = require('node:worker_threads');
const { PNG } = require('pngjs');

parentPort.on('message', ({ id, width, height, colorType, hasAlpha, data }) => {
  const format = { colorType, inputColorType: colorType, inputHasAlpha: hasAlpha };
  try {
    parentPort.postMessage({ id, file: PNG.sync.write({ width, height, data: Buffer.from(data.buffer) }, format) });
  } catch (error) {
    parentPort.postMessage({ id, error });
  }
});
