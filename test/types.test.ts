import { join } from 'node:path';
import ts from 'typescript';
import { root } from './support/paths';

// What a program that uses the package is compiled against: dist/*.d.ts, in the strictest settings and without @types/node.

const declarations = join(root, 'dist', 'index.d.ts');

/** A program of these sources, by name, which import the package. */
function compiled(options: ts.CompilerOptions, sources: Record<string, string> = {}) {
  const settings: ts.CompilerOptions = {
    noEmit: true,
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.Node16,
    moduleResolution: ts.ModuleResolutionKind.Node16,
    ...options,
  };
  const host = ts.createCompilerHost(settings);
  const getSourceFile = host.getSourceFile.bind(host);
  const fileExists = host.fileExists.bind(host);
  host.fileExists = (path) => path in sources || fileExists(path);
  host.getSourceFile = (path, ...rest) =>
    path in sources ? ts.createSourceFile(path, sources[path]!, ts.ScriptTarget.ES2022) : getSourceFile(path, ...rest);
  return ts.createProgram([declarations, ...Object.keys(sources)], settings, host);
}

const messages = (program: ts.Program) =>
  ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => {
    return `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });

const program = `
  import { ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor, type RunOptions } from './dist/index.js';
  class Mine extends ScoreSdeVeScheduler {}
  export async function use(options: { calls?: number; seed?: bigint }) {
    const mine: Mine = Mine.fromConfig({});
    const given: RunOptions = { calls: options.calls, seed: options.seed, signal: undefined, onStep: undefined };
    await using pipeline = await ScoreSdeVePipeline.fromPretrained('digits', { device: undefined });
    const { images } = await pipeline.run(given);
    using copy: Tensor<'float32'> = images.clone();
    mine.stepPred(copy, 0.5, copy, { generator: undefined, out: undefined, returnDict: undefined });
    const png: Uint8Array = await (await pipeline.run()).toPng({ columns: undefined });
    return png;
  }`;
const lib = (...names: string[]) => ({ lib: names.map((name) => `lib.${name}.d.ts`) });
const withBuffer = `${program}
  export const text = async (p: ScoreSdeVePipeline) => (await (await p.run()).toPng()).toString('base64');`;
const withSignal = `${program}
  export const run = (p: ScoreSdeVePipeline) => p.run({ signal: new AbortController().signal });
  export const made = new ScoreSdeVePipeline({
    scheduler: new ScoreSdeVeScheduler(),
    model: (x, sigma, inputs, context) => (context?.signal?.throwIfAborted(), x),
    sampleShape: [1],
  });`;

test.each([
  ['ES2022 alone', lib('es2022'), program],
  ['the DOM', lib('es2022', 'dom'), withSignal],
  ['@types/node', { ...lib('es2022'), types: ['node'] }, `${withSignal}${withBuffer.slice(program.length)}`],
])('a program with %s compiles', (_, options, source) => {
  expect(messages(compiled(options, { [join(root, 'program.ts')]: source }))).toEqual([]);
});

describe('every public property', () => {
  const seen = compiled(lib('es2022'));
  const checker = seen.getTypeChecker();
  const index = checker.getSymbolAtLocation(seen.getSourceFile(declarations)!)!;
  /** The properties of the exported classes and interfaces, by CLASS.NAME. */
  const properties = checker.getExportsOfModule(index).flatMap((exported) => {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    if (!(symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface))) return [];
    const members = [...(symbol.members?.values() ?? []), ...(symbol.exports?.values() ?? [])];
    return members.flatMap((member) => {
      const [declared] = member.declarations ?? [];
      const isProperty = declared && (ts.isPropertySignature(declared) || ts.isPropertyDeclaration(declared));
      if (!declared || (!isProperty && !ts.isGetAccessor(declared) && !ts.isMethodDeclaration(declared))) return [];
      const isPrivate = ts.getCombinedModifierFlags(declared) & ts.ModifierFlags.Private;
      if (isPrivate || ts.isPrivateIdentifier(declared.name) || ts.isComputedPropertyName(declared.name)) return [];
      return [{ name: `${symbol.name}.${member.name}`, member, declared }];
    });
  });

  test('has its docstring', () => {
    expect(properties.length).toBeGreaterThan(150);
    const isBare = ({ member }: { member: ts.Symbol }) => member.getDocumentationComment(checker).length === 0;
    expect(properties.filter(isBare).map(({ name }) => name)).toEqual([]);
  });

  test('that is optional may be undefined', () => {
    const optional = properties.filter(({ member }) => member.flags & ts.SymbolFlags.Optional);
    expect(optional.length).toBeGreaterThan(50);
    const refuses = ({ declared }: { declared: ts.Declaration }) => {
      const type = (declared as ts.PropertySignature).type;
      return type !== undefined && !/\b(undefined|unknown)\b/.test(type.getText());
    };
    expect(optional.filter(refuses).map(({ name }) => name)).toEqual([]);
  });
});
