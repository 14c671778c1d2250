import { PassThrough, type Readable, type Writable } from 'node:stream';
import { isatty, type ReadStream } from 'node:tty';

import { DetachKeys, type RunBottleRequest } from '@decant/sdk';

import { goOnWithoutReader } from '../render/reader-gone.ts';

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** Size of this process's terminal, as a program in a bottle gets it; undefined when there is none. */
export function terminalSize(): TerminalSize | undefined {
  // By their numbers: Node makes a pipe that it looks at one that never blocks, also for whoever shares it.
  if (!isatty(0) || !isatty(1)) return undefined;
  const { columns, rows } = process.stdout;
  const within = (value: number) => Math.min(1000, Math.max(1, value || 1));
  return { columns: within(columns || 80), rows: within(rows || 24) };
}

/**
 * Gives the terminal to a program elsewhere: keys go to it as they are typed, Ctrl-C included, and its size follows. The
 * function that is returned gives it back; call it before anything else is printed. Idempotent.
 */
export function takeTerminal(
  onKeys: (keys: Readable) => void,
  onResize: (size: TerminalSize) => void,
  onDetach?: () => void,
): () => void {
  const input: ReadStream = process.stdin;
  const keys = onDetach === undefined ? input : input.pipe(new DetachKeys(onDetach));
  const resized = () => {
    const size = terminalSize();
    if (size !== undefined) onResize(size);
  };
  input.setRawMode(true);
  process.stdout.on('resize', resized);
  onKeys(keys);
  let taken = true;
  return () => {
    if (!taken) return;
    taken = false;
    process.stdout.off('resize', resized);
    input.setRawMode(false);
    stopTyping();
  };
}

/** The streams of this process for an agent that runs in it. Disposing gives the terminal back. */
export interface Foreground extends AsyncDisposable {
  readonly agent: Pick<RunBottleRequest, 'stdin' | 'inheritStdin' | 'terminal' | 'viewer' | 'onReady'>;
}

export interface ForegroundOptions {
  /** Called before the agent writes. */
  readonly onStart: () => void;
  /**
   * Without a terminal, the agent has standard input itself: what it does not read is left for others. And what it writes to
   * standard error is kept apart, so that it has the terminal only when standard error goes there, too.
   */
  readonly inheritStdin?: boolean | undefined;
}

/** This process's terminal for an agent when it has one, else its streams. */
export function foreground({ onStart, inheritStdin = false }: ForegroundOptions): Foreground {
  const terminal = inheritStdin && !isatty(2) ? undefined : terminalSize();
  goOnWithoutReader();
  const viewer = { stdout: process.stdout, stderr: process.stderr, holdsAgent: true };
  if (inheritStdin && terminal === undefined) {
    return {
      agent: { inheritStdin, viewer, onReady: onStart },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
  // Nothing is read before the agent runs, so that a launch can be interrupted by Ctrl-C.
  const input = new PassThrough();
  let give: (() => void) | undefined;
  return {
    agent: {
      terminal,
      stdin: input,
      viewer,
      onReady: (ready) => {
        onStart();
        if (terminal === undefined) typeInto(input);
        else {
          give = takeTerminal(
            (keys) => void keys.pipe(input),
            (size) => void ready.resize(size).catch(() => undefined),
          );
        }
      },
    },
    [Symbol.asyncDispose]: async () => {
      give?.();
      stopTyping();
    },
  };
}

/** A read of standard input that waits would keep the process. */
export function stopTyping(): void {
  process.stdin.unpipe();
  process.stdin.pause();
  if ('unref' in process.stdin) process.stdin.unref();
}

/** Passes a stream on to standard output or error, which is never closed; resolves at its end. */
export function show(from: NodeJS.ReadableStream, to: Writable): Promise<void> {
  return new Promise((resolve) => {
    from.once('end', resolve);
    from.once('error', () => resolve());
    (from as Readable).once('close', resolve);
    from.pipe(to, { end: false });
  });
}

/** Passes standard input on until either end is over. */
export function typeInto(to: NodeJS.WritableStream): void {
  to.on('error', () => undefined);
  process.stdin.on('error', () => undefined).pipe(to);
  to.once('close', () => {
    stopTyping();
  });
}
