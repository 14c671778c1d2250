import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Backend, ResourceClaim } from '../backends/backend.ts';
import { collectBottles } from './gc.ts';
import { readLedger } from './ledger.ts';
import { openStack, type StackOptions } from './stack.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'decant-stack-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

function optionsFor(extra: Partial<StackOptions> = {}): StackOptions {
  return {
    directory,
    name: 'agent',
    backend: 'native',
    image: 'app:latest',
    wallTimeMs: 60_000,
    reap: async () => undefined,
    ...extra,
  };
}

async function claims(): Promise<readonly ResourceClaim[] | undefined> {
  const record = await readLedger(directory, 'agent');
  return record === 'empty' ? undefined : record?.claims;
}

/** A backend of which only the collector's part is used. */
function backendOf(name: Backend['name'], reap: Backend['reap']): Backend {
  const none = () => Promise.reject(new Error('not used'));
  return { name, probe: none, prepare: none, reap };
}

describe('openStack', () => {
  it('has the claim on the disk before the acquisition begins, and no ledger at the end', async () => {
    const stack = await openStack(optionsFor());
    const seen: unknown[] = [];
    await stack.enter(
      { kind: 'thing', path: '/x' },
      async (note) => {
        seen.push(await claims());
        await note({ pid: 7 });
        seen.push(await claims());
      },
      async () => undefined,
    );
    expect(seen).toEqual([[{ kind: 'thing', path: '/x' }], [{ kind: 'thing', path: '/x', pid: 7 }]]);
    await stack.close();
    await stack.close();
    expect(await readdir(directory)).toEqual([]);
  });

  it('a note cannot change what was claimed', async () => {
    const stack = await openStack(optionsFor());
    const claim = { kind: 'thing', path: '/x' };
    await stack.enter(
      claim,
      (note) => note({ path: '/etc', kind: 'directory' }),
      async () => undefined,
    );
    expect(await claims()).toEqual([claim]);
    await stack.close();
  });

  it('refuses what comes after the end began, and waits for what was under way', async () => {
    const stack = await openStack(optionsFor());
    const order: string[] = [];
    let finish: (() => void) | undefined;
    const slow = stack.enter(
      { kind: 'slow' },
      () => new Promise<void>((resolve) => (finish = resolve)),
      async () => void order.push('slow'),
    );
    await expect.poll(() => finish).toBeDefined();
    const closing = stack.close();
    await expect(
      stack.enter(
        { kind: 'late' },
        async () => 1,
        async () => undefined,
      ),
    ).rejects.toMatchObject({
      code: 'BOTTLE_ENDED',
    });
    finish?.();
    await slow;
    await closing;
    expect(order).toEqual(['slow']);
  });

  it('gives the next free slug, and never one to two', async () => {
    const stacks = await Promise.all(Array.from({ length: 16 }, () => openStack(optionsFor({ name: 'Agent!' }))));
    expect(new Set(stacks.map(({ header }) => header.slug)).size).toBe(16);
    expect(stacks.map(({ header }) => header.slug)).toContain('agent-16');
    for (const stack of stacks) await stack.close();
  });

  it('ends after a hundred of one name', async () => {
    const stacks = await Promise.all(Array.from({ length: 100 }, () => openStack(optionsFor())));
    await expect(openStack(optionsFor())).rejects.toMatchObject({ code: 'CONFLICT' });
    expect((await readdir(directory)).filter((name) => name.startsWith('.'))).toEqual([]);
    await Promise.all(stacks.map((stack) => stack.close()));
  });

  it('keeps the ledger, for the collector, when something cannot be undone', async () => {
    let stays = true;
    const reap = async () => {
      if (stays) throw new Error('busy');
    };
    const stack = await openStack(optionsFor({ reap }));
    const fail = async () => {
      throw new Error('no');
    };
    await stack.enter({ kind: 'container' }, async () => 1, fail);
    await stack.enter(
      { kind: 'let go' },
      async () => 1,
      async () => undefined,
    );
    await expect(stack.close()).rejects.toThrow('several steps of taking agent down failed');
    const backends = [backendOf('native', reap)];
    expect((await collectBottles({ directory, backends })).failed).toMatchObject([{ slug: 'agent' }]);
    stays = false;
    expect((await collectBottles({ directory, backends })).collected).toEqual([
      { slug: 'agent', kinds: ['container'] },
    ]);
    expect(await readdir(directory)).toEqual([]);
  });
});

/** What happens to one resource of a run. */
type Fate =
  | 'fine'
  | 'acquire throws before anything is there'
  | 'acquire throws half-way'
  | 'release throws before it is gone'
  | 'release throws after it is gone'
  | 'cut off at claim'
  | 'cut off at acquire'
  | 'cut off at acquired'
  | 'cut off at release'
  | 'cut off at released';

const fates: readonly Fate[] = [
  'fine',
  'acquire throws before anything is there',
  'acquire throws half-way',
  'release throws before it is gone',
  'release throws after it is gone',
  'cut off at claim',
  'cut off at acquire',
  'cut off at acquired',
  'cut off at release',
  'cut off at released',
];

/** Keeps the open files of owners that were cut off, as the dead do until the kernel closes them. */
const abandoned: unknown[] = [];

/**
 * One run on a world that is a set of names: resources are acquired in order until one fails or the owner is cut off,
 * then let go. A crash leaves the ledger as it is, and the collector runs on it as in another process.
 */
async function play(plan: readonly Fate[]): Promise<void> {
  const world = new Set<string>();
  const undone: string[] = [];
  const reap = async (claim: ResourceClaim) => {
    if (world.delete(String(claim['name']))) undone.push(String(claim['name']));
  };
  const fateOf = (kind: string) => plan[Number(kind.slice(1))]!;
  let die: (value: 'dead') => void;
  const death = new Promise<'dead'>((resolve) => (die = resolve));
  const stack = await openStack(
    optionsFor({
      reap,
      faultHook: async (point) => {
        const [moment, kind = ''] = point.split(':');
        if (fateOf(kind) !== `cut off at ${moment}`) return;
        die('dead');
        // Nothing of the owner runs from here on.
        await new Promise(() => undefined);
      },
    }),
  );
  const expected: string[] = [];
  const acquired: string[] = [];
  const live = async () => {
    let thrown: unknown;
    try {
      for (const [index, fate] of plan.entries()) {
        const name = `r${index}`;
        await stack.enter(
          { kind: name, name },
          async () => {
            if (fate === 'acquire throws before anything is there') throw new Error(`${name} cannot be had`);
            world.add(name);
            if (fate === 'acquire throws half-way') throw new Error(`${name} cannot be had`);
            acquired.push(name);
            return name;
          },
          async () => {
            if (fate === 'release throws before it is gone') throw new Error(`${name} cannot go`);
            if (world.delete(name)) undone.push(name);
            if (fate === 'release throws after it is gone') throw new Error(`${name} cannot go`);
          },
        );
        if (fate.startsWith('release throws')) expected.push(`Error: ${name} cannot go`);
      }
    } catch (error) {
      thrown = error;
    }
    const errors = await stack.close().then(
      () => [],
      (error: unknown) => (error instanceof AggregateError ? error.errors : [error]),
    );
    return { thrown, errors: errors.map(String) };
  };
  const outcome = await Promise.race([live(), death]);
  abandoned.push(stack);
  if (outcome === 'dead') {
    await makeOwnerGone('agent');
    const backends = [backendOf('native', reap)];
    expect((await collectBottles({ directory, backends })).failed).toEqual([]);
    expect(await collectBottles({ directory, backends })).toEqual({ collected: [], running: [], failed: [] });
  } else {
    expect(outcome.errors).toEqual(expected.toReversed());
    const failed = plan.findIndex((fate) => fate.startsWith('acquire throws'));
    expect((outcome.thrown as Error | undefined)?.message).toBe(failed < 0 ? undefined : `r${failed} cannot be had`);
  }
  expect([...world]).toEqual([]);
  expect(undone.filter((name) => acquired.includes(name))).toEqual(acquired.toReversed());
  expect(await readdir(directory)).toEqual([]);
}

/** Rewrites the owner of a ledger into a process that has ended, as it is after SIGKILL. */
async function makeOwnerGone(slug: string): Promise<void> {
  const path = join(directory, `${slug}.jsonl`);
  const lines = (await readFile(path, 'utf8')).split('\n');
  const header = JSON.parse(lines[0]!) as { owner: { start: string } };
  header.owner.start = '1';
  await writeFile(path, [JSON.stringify(header), ...lines.slice(1)].join('\n'));
}

describe('model of the stack', () => {
  const length = 4;
  for (const fate of fates.filter((one) => one !== 'fine')) {
    it(`leaves nothing when ${fate}, after every number of acquisitions`, async () => {
      for (let at = 0; at < length; at++) {
        await play(Array.from({ length }, (_, index) => (index === at ? fate : 'fine')));
      }
    });
  }

  it('leaves nothing after any mix of them', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...fates), { maxLength: 7 }), async (plan) => {
        await play(plan);
      }),
      { numRuns: 60 },
    );
  });
});
