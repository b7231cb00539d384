'use strict';
// Loaded before the command: the process gets the signal TEST_SIGNAL after the fifth step of a run.
const { join } = require('node:path');
const { ScoreSdeVePipeline } = require(join(__dirname, '..', '..', 'dist', 'sampling', 'pipeline.js'));

const { start } = ScoreSdeVePipeline.prototype;
ScoreSdeVePipeline.prototype.start = function (options) {
  const onProgress = (progress) => {
    options.onProgress(progress);
    if (progress.step === 5) process.kill(process.pid, process.env.TEST_SIGNAL);
  };
  return start.call(this, { ...options, onProgress });
};
