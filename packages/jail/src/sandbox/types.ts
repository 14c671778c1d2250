import type { Readable, Writable } from 'node:stream';

import type { ControlGroup, GroupLimits } from '../cgroup.ts';
import type { SandboxReserve } from './reserve.ts';

/** A file system to run: an NBD export on a Unix socket (`exportName` defaults to the empty name), or an image file. */
export type SandboxDisk =
  | { readonly nbdSocket: string; readonly exportName?: string | undefined }
  | { readonly file: string };

/** A file or directory of the host, or memory, below the sandbox's root. */
export type SandboxMount =
  | {
      /** `overlay`: what is written above the source counts as write layer and is thrown away. */
      readonly type: 'read-only' | 'read-write' | 'overlay';
      /** Absolute; links on the way are followed once, now. */
      readonly source: string;
      /** Absolute; made when it is not there; links on the way stay below the sandbox's root. */
      readonly target: string;
    }
  | { readonly type: 'tmpfs'; readonly target: string; readonly sizeBytes: number };

/** A container of another program on this machine, of which nothing but its first process is there. */
export interface SandboxContainer {
  /** Its first process, which takes up orphans, as the host counts it; and when it started (see processStart). */
  readonly pid: number;
  readonly start: string;
  /** The groups that bound it (see controlGroupOf). */
  readonly group: Pick<ControlGroup, 'joinFiles' | 'freezer'>;
}

export interface SandboxOptions {
  readonly disk: SandboxDisk;
  readonly filesystem: 'erofs' | 'ext4';
  /** Default `decant`. */
  readonly hostname?: string | undefined;
  /** Path of a network namespace of the host's user namespace, which is joined; left out: a new one that has only loopback. */
  readonly networkNamespace?: string | undefined;
  /**
   * Most bytes that can be written, and where they are kept until the end: in memory, or in a sparse file below
   * `stateDirectory` that has no name once it is in use.
   */
  readonly writeLayer: { readonly kind: 'memory' | 'disk'; readonly bytes: number };
  readonly mounts?: readonly SandboxMount[] | undefined;
  /** User of the image (see resolveUser) who owns what mounts show and what is copied in; default root. */
  readonly user?: string | undefined;
  /** Folders of the host that no mount may show, besides those of the kernel: none in them, none above them. */
  readonly hiddenFolders?: readonly string[] | undefined;
  /**
   * Control groups around everything in the sandbox; left out: only the number of processes of one user is bounded. With
   * `bestEffort` it is the same where there are no control groups to write to, instead of JAIL_UNAVAILABLE.
   */
  readonly limits?: (GroupLimits & { readonly bestEffort?: boolean | undefined }) | undefined;
  /**
   * The sandbox is in this container's process, IPC and host name namespaces and in its control groups instead of its own;
   * of `limits` only the number of processes counts. It is killed when the sandbox ends, and the sandbox ends with it.
   */
  readonly container?: SandboxContainer | undefined;
  /** Where the sandbox has its (empty) folder, and what killed ones left of theirs is removed. */
  readonly stateDirectory: string;
  /** Programs that were started ahead; left out: all are started when they are needed. */
  readonly reserve?: SandboxReserve | undefined;
  /** Ends the set-up, and later the sandbox. */
  readonly signal?: AbortSignal | undefined;
}

export interface SandboxExecOptions {
  /** Program and arguments; the program is looked for in the PATH of `env` inside. At least one. */
  readonly argv: readonly string[];
  /** The whole environment. HOME and PATH get values when they are not in it, and TERM with a terminal. */
  readonly env: Readonly<Record<string, string>>;
  /** Name or number, with an optional group, by the /etc/passwd and /etc/group inside; default root. */
  readonly user?: string | undefined;
  /** Absolute; default `/`. */
  readonly workingDir?: string | undefined;
  /** Make the working directory when it is not there; default false. */
  readonly makeWorkingDir?: boolean | undefined;
  /** A terminal of the sandbox's own instead of three pipes; its output comes on `stdout`. */
  readonly terminal?: TerminalSize | undefined;
  /** Standard input is that of this process, which must not read it, instead of a pipe; not with a terminal. Default false. */
  readonly inheritStdin?: boolean | undefined;
  /** The command and what it started in its session are killed after this many milliseconds. */
  readonly timeoutMs?: number | undefined;
  /** Kills the command and what it started in its session. */
  readonly signal?: AbortSignal | undefined;
}

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

export interface SandboxExit {
  /** The command's; 128 + n after signal n; 127 when there is no such command, 126 when it cannot be executed. */
  readonly exitCode: number;
  /** False when there is no such command or it cannot be executed, so that nothing ran. */
  readonly ran: boolean;
  readonly timedOut: boolean;
}

/** A command in a sandbox. */
export interface SandboxExec {
  readonly stdin: Writable;
  /** It ends when the command and all that hold it have closed it, which may be after `exit`. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Rejects with JAIL_FAILED when the sandbox is gone, and with the reason of an abort. */
  readonly exit: Promise<SandboxExit>;
  /** Sends a signal to the command's process group; a command that has ended is left alone. */
  signal(name: NodeJS.Signals): void;
  /** Only with a terminal. */
  resize(size: TerminalSize): void;
}

/** Most entries and bytes of one copy. */
export interface SandboxCopyLimits {
  readonly entries: number;
  readonly bytes: number;
}

/** Single files inside, of 8 MiB at most. Links on the way to one are followed below the sandbox's root. */
export interface SandboxFiles {
  /** Undefined when it is not there, no plain file, or too large. */
  read(path: string): Promise<Uint8Array | undefined>;
  /**
   * Takes the place of what was there, also of a link. Resolves to the folders on the way that were made, outer ones first.
   * @throws USAGE, LIMIT_EXCEEDED
   */
  write(path: string, content: Uint8Array, mode: number): Promise<readonly string[]>;
}

/**
 * A root file system with processes, apart from the host: what `openSandbox` gives. Commands join it one by one or
 * many at a time. Everything in it ends when it is disposed and when this process ends, however it ends.
 */
export interface Sandbox extends AsyncDisposable {
  exec(options: SandboxExecOptions): Promise<SandboxExec>;
  /**
   * Copies a file or directory of the host, which belongs to `user` inside then. A directory that is there gets it below
   * itself, by its name. Links in the source are copied as links; devices, sockets and pipes are refused.
   */
  copyIn(source: string, target: string, limits?: SandboxCopyLimits, signal?: AbortSignal): Promise<void>;
  /** Copies a file or directory to a path of the host that must not exist. Nothing inside becomes a path of the host. */
  copyOut(source: string, target: string, limits?: SandboxCopyLimits, signal?: AbortSignal): Promise<void>;
  /**
   * Reads and writes single files inside by one process that joins once, for as long as `use` runs; as root of the image,
   * whose files they become.
   */
  withFiles(use: (files: SandboxFiles) => Promise<void>, signal?: AbortSignal): Promise<void>;
  /** The write layer as an uncompressed OCI layer, ids as they are inside. Processes inside stand still meanwhile. */
  exportChanges(signal?: AbortSignal): Readable;
  /** A path by which processes of this user can enter the network namespace, while the sandbox lives. */
  readonly networkNamespace: string;
  /** Settles when nothing runs in it any more, for whatever reason; never rejects. */
  readonly ended: Promise<{ readonly reason: string }>;
}
