import type { Readable } from 'node:stream';

import { DecantError, quote } from '@decant/core';
import type { RemoteExec } from '@decant/sdk';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { harmless } from '../render/harmless.ts';
import { say } from '../render/terminal.ts';
import { show, stopTyping, takeTerminal, terminalSize, typeInto } from './agent-terminal.ts';
import { environmentOf, millisecondsOf } from './bottle-request.ts';
import { afterSeparator } from './run-image.ts';

export interface ExecOptions extends CommonOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly user?: string;
  readonly workdir?: string;
  readonly env?: readonly string[];
  readonly timeout?: string;
}

/** Exit status of a command whose time was over, as timeout(1) has it. */
const TIMED_OUT_STATUS = 124;

export function execAction(slug: string, words: readonly string[], options: ExecOptions): Promise<void> {
  return invokeWired({ ...options, transient: true }, async ({ decant, signal }) => {
    const argv = afterSeparator(words, `decant bottle exec ${slug}`);
    if (argv.length === 0) throw new DecantError('USAGE', 'There is no command.', { hint: 'Write it after --.' });
    const terminal = options.tty === true ? requireTerminal() : undefined;
    const timeoutMs = millisecondsOf('--timeout', options.timeout);
    using exec = await decant.bottles.exec(
      {
        slug,
        argv,
        env: options.env === undefined ? undefined : environmentOf(options.env),
        user: options.user,
        workingDir: options.workdir,
        terminal,
        timeoutMs,
        stdin: options.interactive === true || terminal !== undefined,
      },
      { signal },
    );
    const { exitCode, timedOut } = await converse(exec, {
      terminal: terminal !== undefined,
      stdin: options.interactive === true,
    });
    if (timedOut) say(`The command was ended: its time of ${options.timeout} was over.`);
    return timedOut ? TIMED_OUT_STATUS : exitCode;
  });
}

export function attachAction(slug: string, options: CommonOptions & { readonly stdin: boolean }): Promise<void> {
  return invokeWired({ ...options, transient: true }, async ({ decant, signal }) => {
    const info = await decant.bottles.info(slug, { signal });
    const terminal = info.terminal ? terminalSize() : undefined;
    using exec = await decant.bottles.attach({ slug, terminal, stdin: options.stdin }, { signal });
    let detached = false;
    const detach = () => {
      detached = true;
      exec[Symbol.dispose]();
    };
    const result = await converse(exec, {
      terminal: terminal !== undefined && options.stdin,
      stdin: options.stdin,
      detach,
    }).catch((error: unknown) => {
      if (!detached) throw error;
    });
    if (result !== undefined) return result.exitCode;
    say(`\nleft ${slug}; it goes on`);
    return 0;
  });
}

function requireTerminal() {
  const size = terminalSize();
  if (size !== undefined) return size;
  throw new DecantError('USAGE', 'Standard input and output are no terminal.', { hint: 'Leave out --tty.' });
}

/** Connects this process's streams to a command until it has ended and all its output is shown. */
async function converse(
  exec: RemoteExec,
  how: { readonly terminal: boolean; readonly stdin: boolean; readonly detach?: () => void },
) {
  const give = how.terminal
    ? takeTerminal(
        (keys) => void keys.pipe(exec.stdin),
        (size) => void exec.resize(size),
        how.detach,
      )
    : undefined;
  try {
    if (give === undefined && how.stdin) typeInto(exec.stdin);
    const shown = Promise.all([show(exec.stdout, process.stdout), show(exec.stderr, process.stderr)]);
    const exit = await exec.exit;
    await shown;
    return exit;
  } finally {
    give?.();
    stopTyping();
  }
}

export interface LogsOptions extends CommonOptions {
  readonly follow?: boolean;
  readonly tail?: string;
  readonly audit?: boolean;
}

export function logsAction(slug: string, options: LogsOptions): Promise<void> {
  return invokeWired({ ...options, transient: true }, async ({ decant, signal }) => {
    const { follow, tail } = options;
    if (options.audit === true && (follow === true || tail !== undefined)) {
      throw new DecantError('USAGE', 'The audit is shown as a whole.', { hint: 'Leave out --follow and --tail.' });
    }
    if (tail !== undefined && !/^\d{1,6}$/.test(tail)) {
      throw new DecantError('USAGE', `Not a number of lines: ${quote(tail)}.`, { hint: 'Write --tail 20.' });
    }
    const output =
      options.audit === true
        ? await decant.bottles.audit(slug, { signal })
        : await decant.bottles.logs(
            { slug, follow, tailLines: tail === undefined ? undefined : Number(tail) },
            { signal },
          );
    await Promise.all([showLog(output.stdout, process.stdout), showLog(output.stderr, process.stderr)]);
    await output.done;
  });
}

/** Unlike a command that was given the terminal, a log has no business with it. Files and other programs get it as it is. */
async function showLog(from: Readable, to: NodeJS.WriteStream): Promise<void> {
  await show(to.isTTY ? from.pipe(harmless()) : from, to);
}
