// Loads the built-in model on an execution provider: node probe.js NAME prints why that fails, or nothing.
// doctor runs this in a process of its own, because a provider may print text or end the process.
import { reasonOf } from '../errors';
import { folderOf, networkOf } from '../sampling/pretrained';
import { openSession } from '../models/onnx/runtime';

openSession(networkOf(folderOf('digits')), process.argv[2])
  .then((session) => session.release?.())
  .catch((error: Error) => process.stdout.write(reasonOf(error.cause ?? error)));
