import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { MIB } from '@decant/core';
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
  /** a ÷ b of each round, the median of them: what was slow for a whole round counts for nothing. */
  ratio(a: keyof T & string, b: keyof T & string): number;
}

export interface Rounds {
  readonly least: number;
  readonly most: number;
  /** After so many milliseconds no other round begins beyond the least number. */
  readonly untilMs?: number;
  /** Rounds at the start that are not counted: while compilers warm up. */
  readonly warmUp?: number;
}

/** Runs every action once a round, in turn, so that a busy machine slows all of them alike. */
export async function interleaved<T extends Record<string, () => Promise<number>>>(
  rounds: number | Rounds,
  actions: T,
): Promise<Samples<T>> {
  const {
    least,
    most,
    untilMs = Infinity,
    warmUp = 0,
  } = typeof rounds === 'number' ? { least: rounds, most: rounds } : rounds;
  const start = performance.now();
  const samples = new Map<string, number[]>(Object.keys(actions).map((name) => [name, []]));
  for (let round = -warmUp; round < most; round++) {
    if (round >= least && performance.now() - start > untilMs) break;
    for (const [name, action] of Object.entries(actions)) {
      const value = await action();
      if (round >= 0) samples.get(name)!.push(value);
    }
  }
  const of = (name: string) => samples.get(name) ?? [];
  return {
    of,
    median: (name) => median(of(name)),
    ratio: (a, b) => median(of(a).map((value, i) => value / of(b)[i]!)),
  };
}

/**
 * The same start for every program: its input in the page cache, and memory that the kernel has just had in use to write to.
 * Without it, a virtual machine whose host takes unused memory back pays for getting it again, which took up to twice
 * the time of a whole run here, and whoever ran after a long pause paid most.
 */
export function warmMemory(input: string, folder: string, bytes: number): void {
  const buffer = new Uint8Array(MIB);
  const reading = openSync(input, 'r');
  while (readSync(reading, buffer) > 0);
  closeSync(reading);
  const path = join(folder, 'memory');
  const writing = openSync(path, 'w');
  for (let done = 0; done < bytes; done += MIB) writeSync(writing, buffer);
  closeSync(writing);
  rmSync(path);
}
