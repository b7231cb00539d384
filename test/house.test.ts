import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import ts from 'typescript';
import { root } from './support/paths';

// Who may import whom (CONTRIBUTING.md, "The house").

type Graph = ReadonlyMap<string, readonly string[]>;

/** The files below a folder with one of the endings, by their paths from the root. */
function filesOf(folder: string, endings: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((path) => posix.join(folder, path.replaceAll('\\', '/')))
    .filter((path) => endings.test(path))
    .sort();
}

const read = (path: string) => readFileSync(join(root, path), 'utf8');

/** One circle of the graph, or nothing. */
function circleOf(graph: Graph): string[] {
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): string[] => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return [];
    path.push(file);
    for (const next of graph.get(file) ?? []) {
      const circle = visit(next);
      if (circle.length > 0) return circle;
    }
    path.pop();
    done.add(file);
    return [];
  };
  for (const file of graph.keys()) {
    const circle = visit(file);
    if (circle.length > 0) return circle;
  }
  return [];
}

/** The edges that `isAllowed` refuses, as text. */
const wrongEdges = (graph: Graph, isAllowed: (from: string, to: string) => boolean): string[] =>
  [...graph].flatMap(([from, list]) => list.filter((to) => !isAllowed(from, to)).map((to) => `${from} -> ${to}`));

test('a circle of imports is found', () => {
  const graph = new Map([
    ['a', ['b', 'd']],
    ['b', ['c']],
    ['c', ['b']],
    ['d', []],
  ]);
  expect(circleOf(graph)).toEqual(['b', 'c', 'b']);
  graph.set('c', ['d']);
  expect(circleOf(graph)).toEqual([]);
});

describe('lib', () => {
  const files = filesOf('lib', /\.(ts|js)$/);
  /** All imports of a file of this package: of values and of types, `import()`, `require` and types `import('...')`. */
  const importsOf = (file: string): string[] => {
    const { importedFiles } = ts.preProcessFile(read(file), true, true);
    const names = importedFiles.map(({ fileName }) => fileName);
    const inside = names.filter((name) => name.startsWith('.') && !name.endsWith('/package.json'));
    return inside.map((name) => {
      const path = posix.join(posix.dirname(file), name).replace(/\.js$/, '');
      const found = [`${path}.ts`, `${path}.js`, `${path}/index.ts`].find((each) => files.includes(each));
      if (found === undefined) throw new Error(`${file} imports ${name}, which is no file`);
      return found;
    });
  };
  const graph = new Map(files.map((file) => [file, importsOf(file)]));

  /** A layer imports itself and the layers before it. */
  const layers = [
    ['platform', 'copies'],
    ['errors'],
    ['package', 'options', 'files', 'signals', 'clock'],
    ['native'],
    ['devices'],
    ['tensor'],
    ['random', 'image'],
    ['scheduler'],
    ['models'],
    ['solvers'],
    ['sampling'],
    ['likelihood'],
    ['serving'],
    ['cli'],
    ['index'],
  ];
  /** lib/tensor/tensor.ts: tensor; lib/errors.ts: errors. */
  const partOf = (file: string) => file.split('/')[1]!.replace(/\.(ts|js)$/, '');
  const layerOf = (file: string) => layers.findIndex((parts) => parts.includes(partOf(file)));

  test('every file is of a known layer', () => {
    expect(files.filter((file) => layerOf(file) < 0)).toEqual([]);
    expect([...graph.values()].flat().length).toBeGreaterThan(100);
  });

  test('has no circle of imports, type imports included', () => {
    expect(circleOf(graph)).toEqual([]);
  });

  test('layers look downwards only', () => {
    expect(wrongEdges(graph, (from, to) => partOf(from) === partOf(to) || layerOf(to) < layerOf(from))).toEqual([]);
  });

  test('solvers hold no tensors: they know neither tensors nor models', () => {
    const allowed = ['solvers', 'scheduler', 'options', 'errors'];
    const isAllowed = (from: string, to: string) =>
      partOf(from) !== 'solvers' || allowed.includes(partOf(to)) || to === 'lib/native/abi.ts';
    expect(wrongEdges(graph, isAllowed)).toEqual([]);
  });
});

describe('native', () => {
  const files = filesOf('native', /\.(cpp|hpp|cu|cuh)$/);
  const includesOf = (file: string) =>
    [...read(file).matchAll(/^#include "([^"]+)"/gm)].map(([, path]) => `native/${path}`);
  const graph = new Map(files.map((file) => [file, includesOf(file)]));

  /** The folders that a folder may include, besides itself. */
  const below: Record<string, string[]> = {
    core: [],
    math: ['core'],
    threads: [],
    cpu: ['threads', 'math', 'core'],
    cuda: ['math', 'core'],
    ort: ['core'],
    binding: ['cpu', 'cuda', 'ort', 'threads', 'math', 'core'],
  };
  const folderOf = (file: string) => file.split('/')[1]!;

  test('every #include "..." is of a file', () => {
    expect(wrongEdges(graph, (_, to) => files.includes(to))).toEqual([]);
  });

  test('has no circle of includes', () => {
    expect(circleOf(graph)).toEqual([]);
  });

  test('layers look downwards only', () => {
    const isAllowed = (from: string, to: string) =>
      folderOf(from) === folderOf(to) || below[folderOf(from)]!.includes(folderOf(to));
    expect(Object.keys(below)).toEqual(expect.arrayContaining([...new Set(files.map(folderOf))]));
    expect(wrongEdges(graph, isAllowed)).toEqual([]);
  });

  test('only the binding knows Node-API', () => {
    const knowing = files.filter((file) => /^#include [<"](napi|node_api|js_native_api|uv)\.h[>"]/m.test(read(file)));
    expect(knowing.length).toBeGreaterThan(0);
    expect(knowing.filter((file) => folderOf(file) !== 'binding')).toEqual([]);
  });
});
