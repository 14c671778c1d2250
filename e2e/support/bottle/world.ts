import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';

import {
  openFence,
  type AuditEvent,
  type Backend,
  type BottleLimits,
  type EgressPolicy,
  type Fence,
  type Mount,
} from '../../../packages/bottle/src/index.ts';
import { MIB } from '../../../packages/core/src/index.ts';
import { openSandbox, type Sandbox } from '../../../packages/jail/src/index.ts';
import type { AuditLine } from './audit-lines.ts';
import { NAME_SERVER, startInternet, type Internet, type Sightings } from './internet.ts';

/** A process in a network namespace of its own that plays the internet and holds the bottles. Its parent asks over IPC. */
export interface WorldCalls {
  start(folder: string): Promise<void>;
  open(request: OpenRequest): Promise<Opened>;
  exec(request: ExecCall): Promise<ExecResult>;
  copyIn(slug: string, source: string, target: string): Promise<void>;
  copyOut(slug: string, source: string, target: string): Promise<void>;
  audit(slug: string): Promise<readonly AuditLine[]>;
  sightings(): Promise<Sightings>;
  stop(slug: string): Promise<void>;
  /** Ends the bottle's sidecar as a crash would. */
  killSidecar(slug: string): Promise<void>;
}

export interface OpenRequest {
  readonly backend: Backend['name'];
  readonly name: string;
  /** Where bottles are kept. */
  readonly directory: string;
  readonly image: { readonly file: string; readonly filesystem: 'ext4' };
  readonly policy: EgressPolicy;
  readonly mounts?: readonly Mount[];
  readonly limits?: Partial<BottleLimits>;
  readonly environment?: Readonly<Record<string, string>>;
}

export interface Opened {
  readonly slug: string;
  readonly state: string;
  /** Process ids of the bottle's sidecar and of others that its ledger names. */
  readonly processIds: readonly number[];
}

export interface ExecCall {
  readonly slug: string;
  readonly argv: readonly string[];
  readonly user?: string;
  readonly input?: string;
  readonly terminal?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** A machine behind a fence: what a bottle is made of. */
interface Cell {
  readonly fence: Fence;
  readonly sandbox: Sandbox;
  readonly events: AuditEvent[];
  readonly env: Readonly<Record<string, string>>;
}

const cells = new Map<string, Cell>();
let internet: Internet | undefined;

function cellOf(slug: string): Cell {
  const cell = cells.get(slug);
  if (cell === undefined) throw new Error(`no cell ${slug}`);
  return cell;
}

function net(): Internet {
  if (internet === undefined) throw new Error('the internet was not started');
  return internet;
}

const calls: WorldCalls = {
  async start(folder) {
    internet = await startInternet(folder);
  },
  async open({ name, directory, image, policy, limits, environment = {} }) {
    const slug = `${name}-${cells.size + 1}`;
    const state = join(directory, slug);
    await mkdir(state, { recursive: true });
    const events: AuditEvent[] = [];
    const fence = await openFence({
      network: 'new',
      policy,
      resolvers: [`${NAME_SERVER}:53`],
      upstreamCaPem: net().caPem,
      onAudit: (event) => events.push(event),
    });
    const sandbox = await openSandbox({
      disk: { file: image.file },
      filesystem: image.filesystem,
      networkNamespace: fence.networkNamespace,
      writeLayer: { kind: 'disk', bytes: limits?.diskBytes ?? 64 * MIB },
      limits: { cpus: 2, memoryBytes: 512 * MIB, processes: 256 },
      stateDirectory: state,
      user: 'agent',
    });
    for (const { path, content } of await fence.trustFiles(() => Promise.resolve(undefined))) {
      const script = `mkdir -p ${dirname(path)} && cat > ${path} && chmod 644 ${path}`;
      const exec = await sandbox.exec({ argv: ['/bin/sh', '-c', script], env: { PATH: '/bin' } });
      exec.stdin.end(content);
      exec.stdout.resume();
      exec.stderr.resume();
      await exec.exit;
    }
    const env = { PATH: '/bin:/usr/bin', ...fence.env, ...environment };
    cells.set(slug, { fence, sandbox, events, env });
    return { slug, state, processIds: [fence.processId] };
  },
  async exec({ slug, argv, user = 'agent', input = '', terminal = false, env = {}, timeoutMs = 60_000 }) {
    const cell = cellOf(slug);
    const exec = await cell.sandbox.exec({
      argv,
      user,
      env: { ...cell.env, ...env },
      timeoutMs,
      terminal: terminal ? { columns: 80, rows: 24 } : undefined,
    });
    exec.stdin.end(input);
    const [stdout, stderr, { exitCode, timedOut }] = await Promise.all([
      text(exec.stdout),
      text(exec.stderr),
      exec.exit,
    ]);
    return { exitCode, timedOut, stdout, stderr };
  },
  copyIn: (slug, source, target) => cellOf(slug).sandbox.copyIn(source, target),
  copyOut: (slug, source, target) => cellOf(slug).sandbox.copyOut(source, target),
  audit: (slug) => Promise.resolve(cellOf(slug).events),
  sightings: () => Promise.resolve(net().sightings()),
  async stop(slug) {
    const { sandbox, fence } = cellOf(slug);
    cells.delete(slug);
    await sandbox[Symbol.asyncDispose]();
    await fence.close();
  },
  killSidecar(slug) {
    process.kill(cellOf(slug).fence.processId, 'SIGKILL');
    return Promise.resolve();
  },
};

interface Call {
  readonly id: number;
  readonly name: keyof WorldCalls;
  readonly args: readonly unknown[];
}

// A secret of the operator in the command line of another process, as careless programs have it.
const canary = process.env['ESCAPE_CANARY'];
const careless = spawn('sh', ['-c', `sleep 900; : ${canary}`], { stdio: 'ignore' });

async function end(): Promise<void> {
  careless.kill();
  await Promise.allSettled([...cells.keys()].map((slug) => calls.stop(slug)));
  process.exit(0);
}

process.on('message', (call: Call) => {
  const method = calls[call.name] as (...args: readonly unknown[]) => Promise<unknown>;
  method(...call.args).then(
    (value) => process.send?.({ id: call.id, value }),
    (error: unknown) =>
      process.send?.({ id: call.id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
// The parent's end is the world's end: nothing of it stays.
process.on('disconnect', () => void end());
