import type { CopyLimits, Exec, ExecRequest } from '../backends/backend.ts';
import type { BottlePlan } from '../plan/plan.ts';

/** Why a bottle ended. */
export type EndReason = 'stopped' | 'wall-time' | 'fence-ended' | 'machine-ended' | 'aborted' | 'failed';

export interface BottleEnd {
  readonly reason: EndReason;
  /** One sentence. */
  readonly message: string;
}

/** Files of a bottle on the host. */
export interface BottlePaths {
  /** Mode 0700; gone with the bottle. A control socket goes here. */
  readonly state: string;
  /** Stays after the bottle. */
  readonly audit: string;
}

export interface BottleStats {
  readonly startedAt: string;
  readonly uptimeMs: number;
  /** Milliseconds left of the wall time limit. */
  readonly remainingMs: number;
  readonly execs: { readonly running: number; readonly total: number };
  /** Counts of the fence, by what it calls them. */
  readonly egress: Readonly<Record<string, number>>;
}

/** A running bottle: all that a provisioner or a user of one sees. Disposing takes it down. */
export interface Bottle extends AsyncDisposable {
  readonly slug: string;
  /** With endpoints, certificate and artifact. */
  readonly plan: BottlePlan;
  readonly paths: BottlePaths;
  /** With the bottle's variables (proxy, trust, agent), below those of the request. @throws BOTTLE_ENDED */
  exec(request: ExecRequest): Promise<Exec>;
  /** A command with a terminal. */
  attach(request: ExecRequest & Required<Pick<ExecRequest, 'terminal'>>): Promise<Exec>;
  /** The agent's command, or the image's own, with its prompt. */
  runAgent(options?: RunAgentOptions): Promise<Exec>;
  copyIn(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void>;
  copyOut(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void>;
  /** What was written above the image, as an uncompressed OCI layer. */
  snapshot(signal?: AbortSignal): NodeJS.ReadableStream;
  stats(): Promise<BottleStats>;
  /**
   * Takes the bottle down: everything in it ends, everything it held is let go in reverse order. Calling it again waits
   * for the same end. @throws what could not be undone; the ledger then stays for `gc`.
   */
  stop(reason?: EndReason, message?: string): Promise<void>;
  /** Resolves when the bottle has been taken down, for whatever reason; never rejects. */
  readonly ended: Promise<BottleEnd>;
}

export interface RunAgentOptions {
  readonly terminal?: ExecRequest['terminal'];
  readonly inheritStdin?: ExecRequest['inheritStdin'];
  /** In place of the plan's command. */
  readonly command?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
}
