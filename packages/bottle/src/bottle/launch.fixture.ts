import { access, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';

import type {
  Backend,
  Exec,
  ExecExit,
  ExecRequest,
  Machine,
  MachineRequest,
  ResourceClaim,
} from '../backends/backend.ts';
import type { Fence, FenceOptions } from '../fence/fence.ts';
import { specOf } from '../manifest/spec.ts';
import type { Manifest } from '../manifest/schema.ts';
import type { BottlePlan } from '../plan/plan.ts';
import { planBottle } from '../plan/plan-bottle.ts';
import type { OpenBottleDeps } from './deps.ts';
import type { LaunchParts } from './launch.ts';

const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUU7HeqQA1GzHEAyEQl6y6enMAriUwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjIwODI5MTZaGA8yMTI2MTAyOTA4Mjkx
NlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCeS
V2cNvaqtGT6HauxNwgvYz4KPnwd+tk6g4hgSw84LJ4kaHMLrqNfXt/Ce+aexjLVG
nW0BldXVvvfDwxPl1kejUzBRMB0GA1UdDgQWBBQg45dHRTy6fSRDBiTJyeiuA7M8
GTAfBgNVHSMEGDAWgBQg45dHRTy6fSRDBiTJyeiuA7M8GTAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDcSxW0sIo9B1Wfpk1HHg3dARqk++X1nV9p
MQ2hboMHnwIhAOW2kcti4XSKQkO6fTZQuUEKJJ3IzArOWyLZOkgnFwNP
-----END CERTIFICATE-----
`;

interface Ends {
  fence: (reason: string) => void;
  machine: (reason: string) => void;
}

/** Parts of launches that write down what is done to them, and hold `world` while they are there; in a folder of bottles of its own. */
export class LaunchStage implements AsyncDisposable {
  /** What was done, in order; may be emptied. */
  log: string[] = [];
  readonly world = new Set<string>();
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(): Promise<LaunchStage> {
    return new LaunchStage(await mkdtemp(join(tmpdir(), 'decant-launch-')));
  }

  async plan(extra: Manifest = {}): Promise<BottlePlan> {
    const { spec } = specOf({ name: 'agent', image: 'app', ...extra, agent: { env: { MODE: 'x' }, ...extra.agent } });
    return await planBottle(spec, { backend: this.fakes().backend });
  }

  /** What is there, and files on the disk besides the audits. */
  async left(): Promise<readonly string[]> {
    return [...this.world, ...(await readdir(this.directory)).filter((name) => name !== 'audit.d')];
  }

  /** Makes the owner of a ledger a process that has ended, as it is after SIGKILL. */
  async ownerDies(slug: string): Promise<void> {
    const path = join(this.directory, `${slug}.jsonl`);
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace(/"start":"\d+"/, '"start":"1"'));
    // What belongs to the process goes with it.
    for (const name of ['image', 'prepared', 'fence', 'machine']) this.world.delete(name);
  }

  /** All parts of one launch; the step that is named fails. */
  fakes(failAt?: string) {
    const record = (line: string) => void this.log.push(line);
    const step = (name: string) => {
      record(name);
      if (name === failAt) throw new Error(`${name} fails`);
    };
    const ends: Partial<Ends> = {};
    const execs: ExecRequest[] = [];
    const hold = (name: string) => {
      step(name);
      this.world.add(name);
    };
    const drop = (name: string) => {
      this.world.delete(name);
      step(`${name} gone`);
    };
    const machine: Machine = {
      async exec(request) {
        execs.push(request);
        const stdin = new PassThrough();
        const exit = new Promise<ExecExit>((resolve) => {
          stdin.resume().once('end', () => resolve({ exitCode: 0, ran: true, timedOut: false }));
        });
        const none = async () => undefined;
        return {
          stdin,
          stdout: new PassThrough(),
          stderr: new PassThrough(),
          exit,
          signal: none,
          resize: none,
        } satisfies Exec;
      },
      async copyIn(source, target) {
        record(`in ${target} ${await readFile(source, 'utf8')}`);
      },
      async copyOut(source, target) {
        record(`out ${source}`);
        await writeFile(target, 'bundle of the image');
      },
      withFiles: (use) =>
        use({
          async read(path) {
            record(`out ${path}`);
            return Buffer.from('bundle of the image');
          },
          async write(path, content) {
            record(`in ${path} ${String(Buffer.from(content))}`);
            return [];
          },
        }),
      exportChanges: () => new PassThrough(),
      networkNamespace: '/proc/1/ns/net',
      ended: new Promise((resolve) => (ends.machine = (reason) => resolve({ reason }))),
      [Symbol.asyncDispose]: async () => drop('machine'),
    };
    const requests: MachineRequest[] = [];
    const backend: Backend = {
      name: 'native',
      probe: async () => ({ usable: true, reasons: [], weaknesses: [] }),
      async prepare(request, stack) {
        requests.push(request);
        await stack.enter(
          { kind: 'group', path: '/sys/fs/cgroup/x' },
          async () => hold('group'),
          async () => drop('group'),
        );
        hold('prepared');
        return {
          network: 'new',
          async start() {
            hold('machine');
            return machine;
          },
          [Symbol.asyncDispose]: async () => drop('prepared'),
        };
      },
      reap: async (claim: ResourceClaim) => {
        record(`reap ${claim.kind}`);
        this.world.delete(claim.kind);
      },
    };
    const fences: FenceOptions[] = [];
    const fence: Fence = {
      networkNamespace: '/proc/1/fd/9',
      processId: 2 ** 22 + 1,
      certificatePem: CERTIFICATE,
      env: { HTTPS_PROXY: 'http://127.0.0.1:9099', MODE: 'of the fence' },
      async trustFiles(read) {
        const bundle = await read('/etc/ssl/certs/ca-certificates.crt');
        return [
          { path: '/etc/ssl/certs/ca-certificates.crt', content: Buffer.from(`${String(bundle)} + ours`), mode: 0o644 },
        ];
      },
      reload: async () => undefined,
      stats: async () => ({ connections: 3 }) as Awaited<ReturnType<Fence['stats']>>,
      ended: new Promise((resolve) => (ends.fence = (reason) => resolve({ reason }))),
      close: async () => drop('fence'),
      [Symbol.asyncDispose]: async () => drop('fence'),
    };
    const parts: LaunchParts = {
      openFence: async (options) => {
        hold('fence');
        fences.push(options);
        return fence;
      },
      selfProbe: async () => {
        step('probe');
      },
      requireSameNetwork: async () => {
        step('same network');
      },
    };
    const deps: OpenBottleDeps = {
      directory: this.directory,
      backend,
      environment: { MODE: 'of the agent' },
      resolveImage: async ({ scratchDirectory }) => {
        await access(scratchDirectory);
        hold('image');
        return {
          image: {
            id: 'cas-v1:00',
            disk: { file: '/x' },
            filesystem: 'erofs',
            config: { Entrypoint: ['/init'], Cmd: ['-v'] },
          },
          [Symbol.asyncDispose]: async () => drop('image'),
        };
      },
      provision: async () => step('provision'),
    };
    return { backend, deps, parts, ends, execs, requests, fences };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}
