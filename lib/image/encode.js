'use strict';
const { PNG } = require('pngjs');

/** A picture's pixels as a PNG file. */
exports.encodePng = ({ width, height, scale, colorType, hasAlpha, data }) =>
  PNG.sync.write(
    { width: scale * width, height: scale * height, data: enlarged(Buffer.from(data.buffer), width, height, scale) },
    { colorType, inputColorType: colorType, inputHasAlpha: hasAlpha },
  );

/** Each pixel `scale` times across and down. */
function enlarged(pixels, width, height, scale) {
  if (scale === 1) return pixels;
  const channels = pixels.length / (width * height);
  const row = scale * width * channels;
  const out = Buffer.allocUnsafe(scale * height * row);
  for (let y = 0; y < height; y++) {
    const first = y * scale * row;
    let to = first;
    for (let from = y * width * channels; from < (y + 1) * width * channels; from += channels)
      for (let k = 0; k < scale; k++) for (let c = 0; c < channels; c++) out[to++] = pixels[from + c];
    for (let k = 1; k < scale; k++) out.copyWithin(first + k * row, first, first + row);
  }
  return out;
}
