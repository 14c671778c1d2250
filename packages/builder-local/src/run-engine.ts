import { run } from '@decant/core/node';

import type { CommandLine } from './confine.ts';
import type { BuildEvent } from './driver.ts';
import { EventQueue } from './event-queue.ts';
import type { OutputReader } from './output/reader.ts';
import { maskText } from './secrets.ts';

export interface EngineRun {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds from TERM to KILL when the build is aborted. */
  readonly killAfterMs: number;
  /** Secrets that no event may show. */
  readonly masked?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

const ANY_CODE = Array.from({ length: 256 }, (_, code) => code);

/** Runs a build command, yields what its output says and returns its exit code. Leaving early ends the process group. */
export async function* runEngine(
  command: CommandLine,
  reader: OutputReader,
  options: EngineRun,
): AsyncGenerator<BuildEvent, number> {
  const queue = new EventQueue();
  const left = new AbortController();
  const signals = options.signal === undefined ? [left.signal] : [options.signal, left.signal];
  const [program, ...args] = command;
  const ended = run(program, args, {
    env: options.env,
    keepBytes: 64 * 1024,
    okCodes: ANY_CODE,
    killAfterMs: options.killAfterMs,
    signal: AbortSignal.any(signals),
    onLine: (line, stream) => {
      for (const event of reader.line(line, stream)) queue.push(hidden(event, options.masked));
    },
  }).finally(() => queue.end());
  // It is awaited below; until then a failure is not an unhandled one.
  ended.catch(() => undefined);
  try {
    yield* queue.drain();
    return (await ended).exitCode ?? 0;
  } finally {
    left.abort();
    await ended.catch(() => undefined);
  }
}

function hidden(event: BuildEvent, masked: readonly string[] = []): BuildEvent {
  if (masked.length === 0) return event;
  if (event.type === 'log') return { ...event, line: maskText(event.line, masked) };
  return event.type === 'warning' ? { ...event, message: maskText(event.message, masked) } : event;
}
