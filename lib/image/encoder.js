'use strict';
// The worker thread of png.ts. Plain JavaScript, so that it runs from lib/ and from dist/ alike.
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
