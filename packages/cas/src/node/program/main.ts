import { parseArgs, type ParseArgsConfig } from 'node:util';

import { DecantError, exitStatusOf, toDecantError } from '@decant/core';

import manifest from '../../../package.json' with { type: 'json' };
import { cat } from './cat.ts';
import { diff } from './diff.ts';
import { make } from './make.ts';
import { verify } from './verify.ts';

/** What a command gets: its positional arguments and the values of its options. */
export interface Invocation {
  readonly positionals: readonly string[];
  readonly values: Readonly<Record<string, string | boolean | undefined>>;
  readonly signal: AbortSignal;
}

interface Command {
  readonly positionals: number;
  readonly options: NonNullable<ParseArgsConfig['options']>;
  /** Most milliseconds until its end after an interruption; default {@link ENDING_MS}. */
  readonly endingMs?: number;
  readonly run: (invocation: Invocation) => Promise<void>;
}

const USAGE = `decant-cas ${manifest.version}: disk images as chunks named by their content

  decant-cas make FILE --store DIR [--workers N] [--level 1-19|raw] [-o MANIFEST] [--no-fsync] [--json]
      Cut a raw disk image into chunks, store those that are new, write its manifest.
  decant-cas verify MANIFEST --store DIR [--json]
      Read every chunk of an image and check its digest.
  decant-cas diff A B [--json]
      Compare two manifests: chunks and bytes that they share, and that are only in B.
  decant-cas cat MANIFEST --store DIR [--offset N] [--length N]
      Write an image, or a part of it, to standard output, every chunk verified.

Sizes may end in K, M, G or T. Results go to standard output, messages to standard error.
Exit status: 0 done, 1 failed, 2 wrong usage, 6 damaged or missing data, 7 no space left, 130 interrupted.
`;

/** How long an interrupted command may take to end: one that only reads has nothing to remove. Milliseconds. */
const ENDING_MS = 3_000;
const CLEANING_MS = 30_000;

const store = { type: 'string' } as const;
const json = { type: 'boolean' } as const;
const COMMANDS: Readonly<Record<string, Command>> = {
  make: {
    positionals: 1,
    options: {
      store,
      json,
      workers: { type: 'string' },
      level: { type: 'string' },
      output: { type: 'string', short: 'o' },
      fsync: { type: 'boolean' },
    },
    endingMs: CLEANING_MS,
    run: make,
  },
  verify: { positionals: 1, options: { store, json }, run: verify },
  diff: { positionals: 2, options: { json }, run: diff },
  cat: { positionals: 1, options: { store, offset: { type: 'string' }, length: { type: 'string' } }, run: cat },
};

const INTERRUPTED_STATUS = 130;
class Interrupted extends Error {}
class GivenUp extends Error {}

async function main(args: readonly string[]): Promise<number> {
  const [name = '--help', ...rest] = args;
  if (name === '--version') {
    process.stdout.write(`${manifest.version}\n`);
    return 0;
  }
  if (name === '--help' || name === '-h' || name === 'help' || rest.includes('--help')) {
    process.stdout.write(USAGE);
    return args.length === 0 ? 2 : 0;
  }
  const stop = new AbortController();
  const interrupt = () => stop.abort(new Interrupted());
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  // What a write fails with comes from the write; standard error has nobody to tell.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  try {
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (command === undefined) throw usage(`There is no command ${JSON.stringify(name)}.`);
    const work = command.run({ ...parse(command, rest), signal: stop.signal });
    await endedOrGivenUp(work, command.endingMs ?? ENDING_MS, stop.signal);
    return 0;
  } catch (error) {
    if (error instanceof GivenUp) return endBySignal();
    if (error instanceof Interrupted) return INTERRUPTED_STATUS;
    // Whoever read the output has enough of it, as `head` does.
    if ((error as { code?: unknown }).code === 'EPIPE') return 0;
    const { code, message, hint } = toDecantError(error);
    process.stderr.write(`error: ${message} [${code}]\n${hint === undefined ? '' : `  ${hint}\n`}`);
    return exitStatusOf(code);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

/**
 * The end of the work, at most `endingMs` after an interruption: opening a FIFO that nobody writes to, or a disk
 * that does not answer, cannot be called off.
 */
async function endedOrGivenUp(work: Promise<void>, endingMs: number, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const givenUp = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => {
      timer = setTimeout(() => reject(new GivenUp()), endingMs);
    });
  });
  try {
    await Promise.race([work, givenUp]);
  } finally {
    clearTimeout(timer);
  }
}

/** The end of a process waits for calls to the system that do not end; a signal's own effect does not. */
function endBySignal(): number {
  process.removeAllListeners('SIGINT');
  process.kill(process.pid, 'SIGINT');
  return INTERRUPTED_STATUS;
}

function parse(command: Command, args: readonly string[]): Omit<Invocation, 'signal'> {
  try {
    const { options } = command;
    const { positionals, values } = parseArgs({
      args: [...args],
      options,
      allowPositionals: true,
      allowNegative: true,
    });
    if (positionals.length !== command.positionals) {
      const needed = command.positionals === 1 ? 'One file name is' : 'Two file names are';
      throw new Error(`${needed} needed, not ${positionals.length}.`);
    }
    return { positionals, values: values as Invocation['values'] };
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error));
  }
}

function usage(message: string): DecantError {
  return new DecantError('USAGE', message, { hint: 'Run decant-cas --help.' });
}

process.exitCode = await main(process.argv.slice(2));
// What still waits, for a reader of the output for example, waits for nothing.
if (process.exitCode === INTERRUPTED_STATUS) process.exit();
