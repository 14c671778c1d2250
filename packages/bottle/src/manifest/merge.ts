import type { Manifest } from './schema.ts';

/**
 * What a manifest says over what it extends:
 *
 * - a single value (name, image, backend, prompt, each limit, …) replaces the other one
 * - `agent.env` is merged by name, `mounts` by target and `egress.routes` by id: the same one replaces, others are added
 *   behind; routes without an id are always added
 * - `egress.deny` has both: a manifest can forbid more than what it extends, and take nothing back
 * - other lists (`agent.command`, `egress.resolvers`) replace
 */
export function mergeManifests(base: Manifest, over: Manifest): Manifest {
  const { extends: _, ...rest } = base;
  return withoutUndefined({
    ...rest,
    ...over,
    egress: merged(base.egress, over.egress, (a, b) => ({
      ...a,
      ...b,
      routes: joined(a.routes, b.routes, (route) => route.id),
      deny: joined(a.deny, b.deny, (pattern) => pattern),
    })),
    mounts: joined(base.mounts, over.mounts, ({ target }) => target.replace(/\/+$/, '')),
    limits: merged(base.limits, over.limits, (a, b) => ({ ...a, ...b })),
    agent: merged(base.agent, over.agent, (a, b) => ({
      ...a,
      ...b,
      env: merged(a.env, b.env, (x, y) => ({ ...x, ...y })),
    })),
  });
}

function merged<T extends object>(a: T | undefined, b: T | undefined, merge: (a: T, b: T) => object): T | undefined {
  if (a === undefined || b === undefined) return b ?? a;
  return withoutUndefined(merge(a, b)) as T;
}

function joined<T>(
  a: readonly T[] | undefined,
  b: readonly T[] | undefined,
  keyOf: (item: T) => string | undefined,
): T[] | undefined {
  if (a === undefined || b === undefined) return (b ?? a) as T[] | undefined;
  const result = [...a];
  for (const item of b) {
    const key = keyOf(item);
    const index = key === undefined ? -1 : result.findIndex((other) => keyOf(other) === key);
    if (index < 0) result.push(item);
    else result[index] = item;
  }
  return result;
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as T;
}
