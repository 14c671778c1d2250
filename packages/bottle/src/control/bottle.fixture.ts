import { spawn } from 'node:child_process';
import { cp } from 'node:fs/promises';
import { constants } from 'node:os';
import { Readable } from 'node:stream';

import type { Exec, ExecExit, ExecRequest } from '../backends/backend.ts';
import { AgentLog } from './agent-log.ts';
import { AgentSession } from './agent-session.ts';
import type { BottleInfo } from './messages.ts';
import type { ControlTarget } from './server.ts';

/** Programs of this machine in place of those of a bottle: the control socket carries either. */
export async function hostExec(request: ExecRequest): Promise<Exec> {
  const [program = '', ...args] = request.argv;
  const child = spawn(program, args, {
    env: { PATH: process.env['PATH'], ...request.env },
    cwd: request.workingDir ?? '/',
    detached: true,
    stdio: 'pipe',
  });
  const kill = (name: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, name);
  };
  let timedOut = false;
  const timer =
    request.timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          kill('SIGKILL');
        }, request.timeoutMs);
  request.signal?.addEventListener('abort', () => kill('SIGKILL'), { once: true });
  const exit = new Promise<ExecExit>((resolve) => {
    child.once('exit', (code, name) => {
      clearTimeout(timer);
      resolve({ exitCode: code ?? 128 + constants.signals[name!], ran: true, timedOut });
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  return {
    stdin: child.stdin,
    stdout: child.stdout,
    stderr: child.stderr,
    exit,
    signal: async (name) => kill(name),
    resize: async () => undefined,
  };
}

export interface FixtureBottle extends ControlTarget {
  readonly stops: number[];
}

/** A control target whose agent is a program of this machine. */
export async function fixtureBottle(
  directory: string,
  agent: readonly string[],
  more: Partial<ControlTarget> & { readonly terminal?: boolean } = {},
): Promise<FixtureBottle> {
  const exec = await hostExec({ argv: agent });
  const session = new AgentSession(exec, { terminal: more.terminal ?? false, log: AgentLog.create(directory) });
  const delivered = session.exit.then(() => session.delivered());
  const stops: number[] = [];
  const info: BottleInfo = {
    slug: 'fixture',
    name: 'fixture',
    image: { ref: 'app', id: `cas-v1:${'0'.repeat(64)}` },
    backend: 'native',
    command: [...agent],
    terminal: more.terminal ?? false,
    state: 'running',
    startedAt: new Date(0).toISOString(),
    pid: process.pid,
    detached: false,
    routes: [],
    counts: { execs: 0, attached: 0, egress: {} },
  };
  return {
    slug: 'fixture',
    agent: session,
    auditFile: `${directory}/audit.jsonl`,
    info: async () => info,
    exec: hostExec,
    copyIn: (source, target) => cp(source, target, { recursive: true }),
    copyOut: (source, target) => cp(source, target, { recursive: true }),
    exportChanges: () => Readable.from([Buffer.from('layer')]),
    stop: async (timeoutMs) => {
      stops.push(timeoutMs);
      await session.signal('SIGKILL');
      await delivered;
    },
    stops,
    ...more,
  };
}
