// Whether the built-in model loads on an execution provider: node probe.js NAME prints the reason why not, or nothing.
// A process of its own for doctor: providers write where they like, and may take the process with them.
import { reasonOf } from '../errors';
import { folderOf, networkOf } from '../sampling/pretrained';
import { openSession } from '../models/onnx/runtime';

openSession(networkOf(folderOf('digits')), process.argv[2])
  .then((session) => session.release?.())
  .catch((error: Error) => process.stdout.write(reasonOf(error.cause ?? error)));
