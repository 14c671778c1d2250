import { run } from '@decant/core/node';

/** What one run of a program took. */
export interface Usage {
  /** User and system time, seconds. */
  readonly cpuSeconds: number;
  readonly wallSeconds: number;
  /** Peak resident memory, in units of 10^6 bytes. */
  readonly peakMb: number;
}

const TIMEOUT_MS = 10 * 60_000;

/** Runs a program under GNU time. */
export async function usageOf(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Usage> {
  const { stderr } = await run('/usr/bin/time', ['-f', '@%U %S %e %M', ...command], {
    env: { ...process.env, ...env },
    timeoutMs: TIMEOUT_MS,
  });
  const [user = 0, system = 0, wall = 0, kib = 0] = (stderr.toString('utf8').split('@').at(-1) ?? '')
    .split(' ')
    .map(Number);
  return { cpuSeconds: user + system, wallSeconds: wall, peakMb: (kib * 1024) / 1e6 };
}

/** CPU seconds of this process that an action takes. */
export async function cpuSecondsOf(action: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await action();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

export async function wallSecondsOf(action: () => unknown): Promise<number> {
  const before = performance.now();
  await action();
  return (performance.now() - before) / 1000;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export interface Samples<T> {
  of(name: keyof T & string): readonly number[];
  median(name: keyof T & string): number;
}

/** Runs every action once a round, in turn, so that a busy machine slows all of them alike. */
export async function interleaved<T extends Record<string, () => Promise<number>>>(
  rounds: number,
  actions: T,
): Promise<Samples<T>> {
  const samples = new Map<string, number[]>(Object.keys(actions).map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, action] of Object.entries(actions)) samples.get(name)!.push(await action());
  }
  return {
    of: (name) => samples.get(name) ?? [],
    median: (name) => median(samples.get(name) ?? []),
  };
}
