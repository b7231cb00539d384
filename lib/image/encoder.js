'use strict';
// The worker thread of png.ts. It is JavaScript, so that it runs from lib/ (in tests) and from dist/.
const { parentPort } = require('node:worker_threads');
const { encodePng } = require('./encode.js');

parentPort.on('message', ({ id, ...picture }) => {
  try {
    parentPort.postMessage({ id, file: encodePng(picture) });
  } catch (error) {
    parentPort.postMessage({ id, error });
  }
});
parentPort.postMessage('ready');
