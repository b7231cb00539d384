// A process may load several copies of this package: from several folders, or one folder again and again, as jest does for
// each of its test files.

/**
 * What the copies in one realm, that is with one global object, share. The first copy that asks makes it.
 * @param name Its name, with a number that is raised whenever its shape changes: a copy of another version with another
 *   shape does not take it
 */
export function shared<T extends object>(name: string, make: () => T): T {
  const key = Symbol.for(`score-sde.${name}`);
  const found = (globalThis as unknown as Record<symbol, (() => T) | undefined>)[key];
  if (found !== undefined) return found();
  const made = make();
  // Behind a function: at the end of a test file jest goes through the global object and takes the properties off all values
  // that it reaches. Where the global object is frozen, each copy keeps its own.
  Reflect.defineProperty(globalThis, key, { value: () => made, configurable: true });
  return made;
}
