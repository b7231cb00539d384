'use strict';
const { TestEnvironment } = require('jest-environment-node');

// jest gives each test file a realm of its own. onnxruntime-node tells its arrays by class, and those that its binding
// makes are of the outer realm: the tests share them.
module.exports = class extends TestEnvironment {
  constructor(...args) {
    super(...args);
    Object.assign(this.global, { Float32Array, Float64Array, Uint16Array, Int32Array, BigInt64Array });
  }
};
