import type { ImageConfig } from '@decant/core';
import type { SandboxCopyLimits, SandboxFiles, TerminalSize } from '@decant/jail';

/** A file system to run: an NBD export on a Unix socket, or an image file; with what the image says about itself. */
export interface BottleImage {
  /** `cas-v1:…` or the reference it was resolved from; printed and recorded. */
  readonly id: string;
  readonly disk: { readonly nbdSocket: string; readonly exportName?: string | undefined } | { readonly file: string };
  readonly filesystem: 'erofs' | 'ext4';
  readonly config: NonNullable<ImageConfig['config']>;
}

/** A directory of the host, or memory, below the bottle's root. */
export type Mount =
  | { readonly type: 'read-only' | 'read-write' | 'overlay'; readonly source: string; readonly target: string }
  | { readonly type: 'tmpfs'; readonly target: string; readonly sizeBytes: number };

/** Bounds of a bottle; what is left out has the backend's default, and every default is finite. */
export interface BottleLimits {
  /** Processors' worth of time, for example 1.5. */
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly processes: number;
  /** Most bytes of the write layer. */
  readonly diskBytes: number;
  /** From launch to teardown, milliseconds. */
  readonly wallTimeMs: number;
  /**
   * What this machine cannot bound is left unbounded instead of refused: memory and processors without control groups
   * to write to; and what is written is kept in memory where there is no place for a volume. Default false.
   */
  readonly bestEffort?: boolean | undefined;
}

export interface MachineRequest {
  /** Unique on this machine while the bottle lives. */
  readonly slug: string;
  readonly image: BottleImage;
  readonly hostname: string;
  readonly mounts: readonly Mount[];
  readonly limits: BottleLimits;
  /** An empty folder of this bottle alone, mode 0700, on the host. */
  readonly stateDirectory: string;
  readonly signal?: AbortSignal | undefined;
}

export interface ExecRequest {
  /** Program and arguments; the program is looked for in PATH of `env`, inside. At least one. */
  readonly argv: readonly string[];
  /** Added to the environment of the image and of the bottle. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Name or number with an optional group; default: the image's user. */
  readonly user?: string | undefined;
  /** Default: the image's working directory. */
  readonly workingDir?: string | undefined;
  /** A terminal of this size instead of three pipes; its output comes on `stdout`. */
  readonly terminal?: TerminalSize | undefined;
  /** Standard input is that of this process, which must not read it, instead of a pipe; not with a terminal. Default false. */
  readonly inheritStdin?: boolean | undefined;
  /** The command and what it started in its session end after this time. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ExecExit {
  /** 128 + n after signal n; 127 no such command, 126 not executable. */
  readonly exitCode: number;
  /** False when there is no such command or it cannot be executed, so that nothing ran. */
  readonly ran: boolean;
  readonly timedOut: boolean;
}

/** A command that runs in a bottle. Its streams follow back-pressure. */
export interface Exec {
  readonly stdin: NodeJS.WritableStream;
  readonly stdout: NodeJS.ReadableStream;
  readonly stderr: NodeJS.ReadableStream;
  readonly exit: Promise<ExecExit>;
  /** Sends a signal to the command's process group. */
  signal(name: NodeJS.Signals): Promise<void>;
  /** Only with a terminal. */
  resize(size: TerminalSize): Promise<void>;
}

/** Most entries and bytes of one copy. */
export type CopyLimits = SandboxCopyLimits;

/** Single files of a machine, of 8 MiB at most. Links on the way to one are followed below the machine's root. */
export type MachineFiles = SandboxFiles;

/** A running machine: what a backend gives and a bottle is built on. Disposing ends everything in it. */
export interface Machine extends AsyncDisposable {
  exec(request: ExecRequest): Promise<Exec>;
  /**
   * Copies a file or directory of the host to a path inside. Links on the way inside are resolved below the bottle's root and
   * nowhere else; devices, sockets and pipes are refused, setuid and setgid bits dropped.
   */
  copyIn(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void>;
  /** Copies a file or directory out to a path of the host that does not exist; what is inside never becomes a host path. */
  copyOut(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void>;
  /** Reads and writes single files inside, for as long as `use` runs. */
  withFiles(use: (files: MachineFiles) => Promise<void>, signal?: AbortSignal): Promise<void>;
  /** What was written above the image, as an uncompressed OCI layer (tar with whiteouts, ids as the image sees them). */
  exportChanges(signal?: AbortSignal): NodeJS.ReadableStream;
  /** A path by which processes of the host enter its network namespace, while it lives. */
  readonly networkNamespace: string;
  /** Ends when the machine's first process ends, for whatever reason; never rejects. */
  readonly ended: Promise<{ readonly reason: string }>;
}

/** A machine whose network namespace is there, and in which nothing of the image has run yet. */
export interface PreparedMachine extends AsyncDisposable {
  /** `new`: the fence makes the namespace and the machine joins it. A path: the fence opens its listeners in that one. */
  readonly network: 'new' | { readonly path: string };
  /** With no namespace of a fence, in a new one that has nothing but loopback. */
  start(fence: { readonly networkNamespace: string | undefined }): Promise<Machine>;
}

/** One thing a bottle may acquire outside its own processes, as the ledger records it before it is acquired. */
export interface ResourceClaim {
  readonly kind: string;
  readonly [fact: string]: string | number;
}

/** Records a claim durably, then acquires; undone in reverse order at the end, or by `gc` after a crash. */
export interface ResourceStack {
  /**
   * `note` adds facts to the claim that are known only while it is acquired (a process id, say), durably. When `acquire`
   * throws, what there is of the claim is undone by the backend's `reap`, as after a crash.
   */
  enter<T>(
    claim: ResourceClaim,
    acquire: (note: (facts: Readonly<Record<string, string | number>>) => Promise<void>) => Promise<T>,
    release: (value: T) => Promise<void>,
  ): Promise<T>;
  /** As `enter`, for what a crash of the machine ends too: the claim outlives this process, and need not wait for the disk. */
  hold<T>(
    claim: ResourceClaim,
    acquire: (note: (facts: Readonly<Record<string, string | number>>) => Promise<void>) => Promise<T>,
    release: (value: T) => Promise<void>,
  ): Promise<T>;
}

export interface BackendReport {
  readonly usable: boolean;
  /** What is missing, and how to mend it. */
  readonly reasons: readonly string[];
  /** How this backend is weaker than the strongest one; printed in plans. */
  readonly weaknesses: readonly string[];
}

/** One way to run a bottle. All of them pass the same contract and the same adversarial suite. */
export interface Backend {
  readonly name: 'native' | 'docker';
  /** Its machines always join a namespace that the fence makes, so that the fence can be opened while they are prepared. */
  readonly joinsNetwork?: true | undefined;
  probe(signal?: AbortSignal): Promise<BackendReport>;
  prepare(request: MachineRequest, stack: ResourceStack): Promise<PreparedMachine>;
  /** Undoes a claim that an ended process left behind. Idempotent: what is gone already is success. */
  reap(claim: ResourceClaim): Promise<void>;
}
