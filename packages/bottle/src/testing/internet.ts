import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { run, type RunResult } from '@decant/core/node';

import type { AuditEvent } from '../audit/audit-event.ts';
import { trustFilesOf } from '../egress/trust.ts';
import type { FenceStats } from '../fence/fence.ts';
import type { EgressPolicy, Route } from '../net/policy.ts';
import type { Answer, Order } from './internet-messages.ts';

export interface Seen {
  readonly asked: readonly string[];
  readonly forbidden: { readonly connections: number; readonly bytes: number };
  readonly aborted: number;
  readonly events: readonly AuditEvent[];
}

interface Opened {
  readonly networkNamespace: string;
  readonly processId: number;
  readonly certificatePem: string;
  readonly env: Readonly<Record<string, string>>;
}

export interface InsideOptions {
  /** Without the proxy variables: connections are caught. */
  readonly transparent?: boolean;
  /** Without the trust variables: only the system's bundle. */
  readonly bare?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
  readonly timeoutMs?: number;
  readonly okCodes?: readonly number[];
}

export function route(id: string, host: string, more: Partial<Route> = {}): Route {
  return { id, hosts: [host], ports: [443, 80], protocol: 'http', matches: [], privateRanges: [], ...more };
}

/** A stand-in for the internet, and one fence at a time in front of it. */
export class Internet implements AsyncDisposable {
  readonly folder: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (value: never) => void; reject: (error: unknown) => void }>();
  #next = 0;
  #opened: Opened | undefined;

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.folder = folder;
    child.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id);
      if ('error' in answer) waiting?.reject(Object.assign(new Error(answer.error.message), answer.error));
      else waiting?.resolve(answer.value as never);
    });
  }

  static async open(): Promise<Internet> {
    const folder = await mkdtemp(join(tmpdir(), 'decant-internet-'));
    const worker = fileURLToPath(new URL('./internet-worker.ts', import.meta.url));
    const child = spawn('unshare', ['--net', process.execPath, '--conditions=@decant/source', worker, folder], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const [first] = (await once(child, 'message', { signal: AbortSignal.timeout(60_000) })) as [{ ready: string }];
    await writeFile(join(folder, 'upstream-ca.pem'), first.ready);
    return new Internet(child, folder);
  }

  get fence(): Opened {
    if (this.#opened === undefined) throw new Error('no fence is open');
    return this.#opened;
  }

  async openFence(
    routes: readonly Route[],
    more: Partial<Extract<Order, { type: 'open' }>['options']> = {},
  ): Promise<void> {
    this.#opened = await this.#ask<Opened>({ type: 'open', options: { policy: { routes, deny: [] }, ...more } });
    const files = await trustFilesOf(this.fence.certificatePem, (path) => readFile(path).catch(() => undefined));
    const trust = join(this.folder, 'trust');
    await rm(trust, { recursive: true, force: true });
    for (const file of files) {
      await mkdir(dirname(join(trust, file.path)), { recursive: true });
      await writeFile(join(trust, file.path), file.content);
    }
    await writeFile(join(trust, 'etc/resolv.conf'), 'nameserver 127.0.0.1\n');
  }

  reload(policy: EgressPolicy): Promise<void> {
    return this.#ask({ type: 'reload', policy });
  }
  stats(): Promise<FenceStats> {
    return this.#ask({ type: 'stats' });
  }
  seen(): Promise<Seen> {
    return this.#ask({ type: 'seen' });
  }
  ended(): Promise<{ reason: string }> {
    return this.#ask({ type: 'ended' });
  }
  closeFence(): Promise<void> {
    return this.#ask({ type: 'close' });
  }

  /** The first event that fits, within twenty seconds. */
  async event(fits: (event: AuditEvent) => boolean): Promise<AuditEvent> {
    for (let tries = 0; tries < 400; tries++) {
      const found = (await this.seen()).events.find(fits);
      if (found !== undefined) return found;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`no such event among ${JSON.stringify((await this.seen()).events.slice(-20))}`);
  }

  /** Runs a program behind the fence, with the trust files in their places as a bottle has them. */
  async inside(argv: readonly string[], options: InsideOptions = {}): Promise<RunResult> {
    const { networkNamespace, env } = this.fence;
    const chosen = Object.entries(env).filter(
      ([name]) => !(options.transparent === true && /proxy/i.test(name)) && options.bare !== true,
    );
    const script = [
      'set -e',
      'mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work',
      'mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc',
      `cp -a ${this.folder}/trust/etc/. /etc/`,
      `exec nsenter --net=${networkNamespace} "$@"`,
    ].join('\n');
    return await run('unshare', ['--mount', 'sh', '-c', script, 'sh', ...argv], {
      env: {
        PATH: process.env['PATH'],
        HOME: this.folder,
        LC_ALL: 'C.UTF-8',
        ...Object.fromEntries(chosen),
        ...options.env,
      },
      timeoutMs: options.timeoutMs ?? 120_000,
      okCodes: options.okCodes ?? [0],
      ...(options.input === undefined ? {} : { input: options.input }),
    });
  }

  /** Runs a program on the other side of the fence, beside the servers: what there is to compare with. */
  async outside(argv: readonly string[], timeoutMs = 120_000): Promise<RunResult> {
    return await run('nsenter', [`--net=/proc/${this.#child.pid}/ns/net`, ...argv], { timeoutMs });
  }

  /** Sends bytes to an address behind the fence, and gives all that comes back until the other side closes. */
  async raw(address: string, port: number, bytes: string | Uint8Array, timeoutMs = 30_000): Promise<Buffer> {
    const program = [
      'import socket,sys',
      // Who is refused and says nothing for a moment is cut off: what is slow comes before the connection.
      'd=sys.stdin.buffer.read()',
      'a,b=socket.socketpair(); a.sendall(d[:1]); a.close(); b.recv(1)',
      `s=socket.create_connection((sys.argv[1],int(sys.argv[2])),${timeoutMs / 1000})`,
      'o=sys.stdout.buffer',
      'try:',
      ' s.sendall(d)',
      ' while True:',
      '  b=s.recv(65536)',
      '  if not b: break',
      '  o.write(b); o.flush()',
      'except ConnectionResetError: pass',
      'except BrokenPipeError: pass',
      "except TimeoutError: o.write(b'<still open>')",
    ].join('\n');
    const { stdout } = await run(
      'nsenter',
      [`--net=${this.fence.networkNamespace}`, 'python3', '-c', program, address, String(port)],
      { input: bytes, timeoutMs: timeoutMs + 10_000 },
    );
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#child, 'exit');
    this.#child.disconnect();
    await closed;
    await rm(this.folder, { recursive: true, force: true });
  }

  #ask<T>(order: Order): Promise<T> {
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.send({ id, order });
    }).finally(() => this.#waiting.delete(id));
  }
}
