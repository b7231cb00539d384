'use strict';
const { PNG } = require('pngjs');

/** A picture's pixels as a PNG file. */
exports.encodePng = ({ width, height, colorType, hasAlpha, data }) =>
  PNG.sync.write(
    { width, height, data: Buffer.from(data.buffer) },
    { colorType, inputColorType: colorType, inputHasAlpha: hasAlpha },
  );
