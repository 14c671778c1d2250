import { rename, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { DecantError, toDecantError } from '@decant/core';
import { formatPlan, STATUS_FD, type PlannedBottle, type SupervisorStatus } from '@decant/sdk';

import { invokeWired } from '../invoke.ts';
import { print, printable, printJson, say, stderr } from '../render/terminal.ts';
import { foreground, terminalSize } from './agent-terminal.ts';
import { requestOf, type CommandWords, type PlanOptions } from './bottle-request.ts';

export interface RunOptions extends PlanOptions {
  readonly detach?: boolean;
  readonly tty?: boolean;
  /** This process is the supervisor that a detaching command started. */
  readonly supervise?: boolean;
}

export function planAction(words: CommandWords, options: PlanOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const planned = await decant.bottles.plan(requestOf(words, options), { signal });
    if (options.json === true) printJson({ plan: planned.plan, files: planned.files });
    else {
      for (const line of formatPlan(planned.plan).split('\n')) print(printable(line));
      for (const file of planned.files) say(`from ${file}`);
    }
    return planned.plan.obstacles.length > 0 ? UNAVAILABLE_STATUS : 0;
  });
}

/** As for errors of what is not available. */
const UNAVAILABLE_STATUS = 7;
/** Of a terminal nobody looks at yet. */
const DETACHED_SIZE = { columns: 120, rows: 40 } as const;

export function runAction(words: CommandWords, options: RunOptions): Promise<void> {
  if (options.supervise === true) return supervise(words, options);
  if (options.detach === true) return detach(words, options);
  return invokeWired({ ...options, transient: true }, async ({ decant, progress, signal }) => {
    const planned = await decant.bottles.plan(requestOf(words, options), { signal });
    showPlan(planned);
    if (options.tty === true && terminalSize() === undefined) {
      throw new DecantError('USAGE', 'Standard input and output are no terminal.', {
        hint: 'Leave out --tty, or run it with --detach and attach to it.',
      });
    }
    await using streams = foreground({ onStart: () => progress.end() });
    const { exitCode } = await decant.bottles.run(
      { planned, detached: false, trustFilesystem: options.trustFilesystem, ...streams.agent },
      { onEvent: progress.onEvent, signal },
    );
    return exitCode;
  });
}

/** What will be allowed, before anything runs; on standard error, since the output is the agent's. */
function showPlan({ plan }: PlannedBottle): void {
  for (const line of formatPlan(plan).split('\n')) say(stderr.style.dim(printable(line)));
}

function detach(words: CommandWords, options: RunOptions): Promise<void> {
  return invokeWired({ ...options, transient: true }, async ({ decant, progress, signal }) => {
    const planned = await decant.bottles.plan(requestOf(words, options), { signal });
    if (options.json !== true) showPlan(planned);
    const [node = '', main = '', ...args] = process.argv;
    const at = args.indexOf('run');
    const { slug, pid } = await decant.bottles.detach(
      { command: [node, ...process.execArgv, main, ...args.toSpliced(at + 1, 0, '--supervise')] },
      { onEvent: progress.onEvent, signal },
    );
    progress.end();
    if (options.json === true) printJson({ slug, pid });
    else {
      print(slug);
      say(`decant bottle logs -f ${slug} follows it, decant bottle stop ${slug} ends it`);
    }
  });
}

/** The supervisor of a detached bottle: it tells how its start went by a descriptor, and what it says later is kept. */
async function supervise(words: CommandWords, options: RunOptions): Promise<void> {
  let told = false;
  const tell = (status: SupervisorStatus) => {
    try {
      writeSync(STATUS_FD, `${JSON.stringify(status)}\n`);
    } catch {
      // Who started it is gone, which does not matter to a bottle of its own.
    }
  };
  await invokeWired({ ...options, progress: 'none' }, async ({ decant, signal }) => {
    try {
      const planned = await decant.bottles.plan(requestOf(words, options), { signal });
      // Where it was started may be unmounted while it runs.
      process.chdir('/');
      const { exitCode } = await decant.bottles.run(
        {
          planned,
          detached: true,
          trustFilesystem: options.trustFilesystem,
          terminal: options.tty === true ? DETACHED_SIZE : undefined,
          onReady: ({ slug, record }) => {
            keepOutput(record);
            tell({ type: 'ready', slug, pid: process.pid });
            told = true;
          },
        },
        { onEvent: (event) => tell({ type: 'event', event }), signal },
      );
      return exitCode;
    } catch (error) {
      const { code, message, hint, details } = toDecantError(error);
      if (!told) tell({ type: 'error', error: { code, message, ...(hint === undefined ? {} : { hint }), details } });
      throw error;
    }
  });
}

/** The file that standard output and error go to gets its place beside what the agent writes. */
function keepOutput(record: string): void {
  const file = process.env['DECANT_SUPERVISOR_LOG'] ?? '';
  if (dirname(file) !== dirname(record)) return;
  rename(file, join(record, 'supervisor.log'), () => undefined);
}
