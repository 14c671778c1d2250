import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';

import {
  dockerBackend,
  nativeBackend,
  openBottle,
  openFence,
  planBottle,
  type Backend,
  type Bottle,
  type BottleLimits,
  type EgressPolicy,
  type FenceOptions,
  type Mount,
  type OpenBottleDeps,
} from '../../../packages/bottle/src/index.ts';
import { MIB, sleep } from '../../../packages/core/src/index.ts';
import type { AuditLine } from './audit-lines.ts';
import { NAME_SERVER, startInternet, type Internet, type Sightings } from './internet.ts';

/** A process in a network namespace of its own that plays the internet and holds the bottles. Its parent asks over IPC. */
export interface WorldCalls {
  start(folder: string): Promise<void>;
  open(request: OpenRequest): Promise<Opened>;
  /** Opens a bottle of which one part fails, and gives why it did not come or go as it should. */
  fail(request: OpenRequest, part: FailingPart): Promise<string>;
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

/** What fails: the image, the process that makes the authority, its certificate, a port that is taken, the operator's set-up, or the end. */
export type FailingPart = 'image' | 'sidecar' | 'certificate' | 'port' | 'provision' | 'teardown';

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

/** Launches a bottle; `failing`: its image cannot be had, or cannot be let go. */
async function launch(
  { backend: backendName, name, directory, image, policy, mounts = [], limits, environment = {} }: OpenRequest,
  parts: Partial<OpenBottleDeps> = {},
  failing?: 'image' | 'teardown',
): Promise<Bottle> {
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
  return await openBottle(plan, {
    directory,
    backend,
    environment,
    resolveImage: async () => {
      if (failing === 'image') throw new Error('the image cannot be had');
      return {
        image: { id: 'attack', disk: { file: image.file }, filesystem: image.filesystem, config },
        [Symbol.asyncDispose]: async () => {
          if (failing === 'teardown') throw new Error('the image cannot be let go');
        },
      };
    },
    ...parts,
  });
}

const NOTHING: FenceOptions = { network: 'new', policy: { routes: [], deny: [] }, onAudit: () => undefined };

/** Programs in the place of the sidecar: one that ends, and one whose certificate is none. */
async function brokenSidecars(directory: string): Promise<Readonly<Record<'sidecar' | 'certificate', URL>>> {
  await mkdir(directory, { recursive: true });
  const folder = await mkdtemp(`${directory}-broken-`);
  // The sidecar is a user of its own, who has to be able to read it.
  await chmod(folder, 0o755);
  const files = {
    sidecar: ['ends.mjs', 'process.exit(7);'],
    certificate: [
      'lies.mjs',
      "process.on('disconnect', () => process.exit()); process.on('message', () => process.send({ type: 'configured' })); process.send({ type: 'listening', certificatePem: 'none' });",
    ],
  } as const;
  for (const [name, text] of Object.values(files)) await writeFile(join(folder, name), text, { mode: 0o644 });
  const urlOf = ([name]: readonly [string, string]) => pathToFileURL(join(folder, name));
  return { sidecar: urlOf(files.sidecar), certificate: urlOf(files.certificate) };
}

const calls: WorldCalls = {
  async start(folder) {
    internet = await startInternet(folder);
  },
  async open(request) {
    const { directory } = request;
    const bottle = await launch(request);
    bottles.set(bottle.slug, bottle);
    return { slug: bottle.slug, state: bottle.paths.state, processIds: await processIds(directory, bottle.slug) };
  },
  async fail(request, part) {
    await using taken = part === 'port' ? await openFence(NOTHING) : undefined;
    const broken = await brokenSidecars(request.directory);
    const parts: Partial<OpenBottleDeps> = {
      openFence: (options) =>
        openFence({
          ...options,
          ...(taken === undefined ? {} : { network: { path: taken.networkNamespace } }),
          ...(part === 'sidecar' || part === 'certificate' ? { sidecarUrl: broken[part] } : {}),
        }),
      ...(part === 'provision' ? { provision: () => Promise.reject(new Error('the set-up fails')) } : {}),
    };
    const failing = part === 'image' || part === 'teardown' ? part : undefined;
    try {
      const bottle = await launch(request, parts, failing);
      await bottle.stop();
    } catch (error) {
      const all = error instanceof AggregateError ? (error.errors as unknown[]) : [error];
      return all.map((one) => (one instanceof Error ? one.message : String(one))).join('; ');
    }
    return '';
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

process.on('message', ({ id, name, args }: Call) => {
  const method = calls[name] as (...args: readonly unknown[]) => Promise<unknown>;
  // A test that has ended does not wait for its answers.
  const reply = (answer: object) => process.send?.({ id, ...answer }, undefined, undefined, () => undefined);
  method(...args).then(
    (value) => reply({ value }),
    (error: unknown) => reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
// The parent's end is the world's end: nothing of it stays.
process.on('disconnect', () => void end());
