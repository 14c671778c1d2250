import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';

import {
  dockerBackend,
  nativeBackend,
  openBottle,
  planBottle,
  type Backend,
  type Bottle,
  type BottleLimits,
  type EgressPolicy,
  type Mount,
} from '../../../packages/bottle/src/index.ts';
import { MIB, sleep } from '../../../packages/core/src/index.ts';
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

const bottles = new Map<string, Bottle>();
let internet: Internet | undefined;

function bottleOf(slug: string): Bottle {
  const bottle = bottles.get(slug);
  if (bottle === undefined) throw new Error(`no bottle ${slug}`);
  return bottle;
}

function net(): Internet {
  if (internet === undefined) throw new Error('the internet was not started');
  return internet;
}

function backendOf(name: Backend['name'], directory: string): Backend {
  const hiddenFolders = [directory];
  return name === 'docker' ? dockerBackend({ hiddenFolders }) : nativeBackend({ hiddenFolders });
}

const calls: WorldCalls = {
  async start(folder) {
    internet = await startInternet(folder);
  },
  async open({ backend: backendName, name, directory, image, policy, mounts = [], limits, environment = {} }) {
    const backend = backendOf(backendName, directory);
    const plan = await planBottle(
      {
        name,
        image: 'attack',
        backend: backendName,
        egress: { policy, resolvers: [`${NAME_SERVER}:53`], upstreamCaFile: net().caFile },
        mounts,
        limits: {
          cpus: 2,
          memoryBytes: 512 * MIB,
          processes: 256,
          diskBytes: 64 * MIB,
          wallTimeMs: 600_000,
          ...limits,
        },
        agent: {
          command: [],
          prompt: undefined,
          promptMode: 'argument',
          environmentNames: Object.keys(environment),
          user: undefined,
          workingDir: undefined,
        },
      },
      { backend },
    );
    const config = { User: 'agent', Env: ['PATH=/bin:/usr/bin'], WorkingDir: '/home/agent' };
    const bottle = await openBottle(plan, {
      directory,
      backend,
      environment,
      resolveImage: async () => ({
        image: { id: 'attack', disk: { file: image.file }, filesystem: image.filesystem, config },
        [Symbol.asyncDispose]: async () => undefined,
      }),
    });
    bottles.set(bottle.slug, bottle);
    return { slug: bottle.slug, state: bottle.paths.state, processIds: await processIds(directory, bottle.slug) };
  },
  async exec({ slug, argv, user, input = '', terminal = false, env, timeoutMs = 300_000 }) {
    const exec = await bottleOf(slug).exec({
      argv,
      user,
      env,
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
  copyIn: (slug, source, target) => bottleOf(slug).copyIn(source, target),
  copyOut: (slug, source, target) => bottleOf(slug).copyOut(source, target),
  async audit(slug) {
    const lines = (await readFile(bottleOf(slug).paths.audit, 'utf8')).trimEnd().split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as AuditLine);
  },
  sightings: () => Promise.resolve(net().sightings()),
  async stop(slug) {
    await bottleOf(slug).stop();
    bottles.delete(slug);
  },
  async killSidecar(slug) {
    const [pid] = await processIds(dirname(bottleOf(slug).paths.state), slug, 'fence');
    if (pid === undefined) throw new Error('the ledger names no sidecar');
    process.kill(pid, 'SIGKILL');
    // Its listeners are there until it is; its parent is this process.
    while (existsSync(`/proc/${pid}`)) await sleep(10);
  },
};

interface LedgerLine {
  readonly kind?: string;
  readonly claim?: number;
  readonly note?: number;
  readonly facts?: { readonly pid?: number };
}

/** Process ids of what a bottle holds, of one kind or of all, as its ledger has them. */
async function processIds(directory: string, slug: string, kind?: string): Promise<number[]> {
  const lines = (await readFile(join(directory, `${slug}.jsonl`), 'utf8')).trimEnd().split('\n');
  const entries = lines.map((line) => JSON.parse(line) as LedgerLine);
  const claims = new Set(
    entries.filter((entry) => kind === undefined || entry.kind === kind).map(({ claim }) => claim),
  );
  return entries.flatMap(({ claim, note, facts }) =>
    facts?.pid !== undefined && claims.has(claim ?? note) ? [facts.pid] : [],
  );
}

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
  await Promise.allSettled([...bottles.values()].map((bottle) => bottle.stop()));
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
