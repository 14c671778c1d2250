import type { ClaimedBuild, ImageBuildStore } from '../metadata/image-build-store.ts';

export interface LogWriterOptions {
  readonly builds: ImageBuildStore;
  readonly claim: ClaimedBuild;
  /** Most bytes that are kept. */
  readonly limitBytes: number;
  /** Told after each write. */
  readonly onWritten: () => void;
  /** Told once when the limit is passed; later lines are only kept as the last ones. */
  readonly onLimit: () => void;
  /** Told when the claim is lost or the log cannot be written. */
  readonly onFailure: (error: unknown) => void;
}

/** Milliseconds between two writes, each of which is durable. */
const INTERVAL_MS = 150;
const LAST_LINES = 20;
const LONGEST_LAST_LINE = 2000;

/** Gathers lines of output and writes them in pieces. Memory is bounded by the limit. */
export class LogWriter {
  readonly #options: LogWriterOptions;
  #pending: string[] = [];
  #last: string[] = [];
  #bytes: number;
  #full = false;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: LogWriterOptions) {
    this.#options = options;
    this.#bytes = options.claim.build.logBytes;
  }

  /** The last lines, also those that the log has no room for. */
  get lastLines(): readonly string[] {
    return this.#last;
  }

  add(line: string): void {
    const text = line.replaceAll(/[\r\n]/g, ' ');
    this.#last.push(text.length > LONGEST_LAST_LINE ? `${text.slice(0, LONGEST_LAST_LINE)}…` : text);
    if (this.#last.length > LAST_LINES) this.#last.shift();
    if (this.#full) return;
    this.#bytes += Buffer.byteLength(text) + 1;
    if (this.#bytes > this.#options.limitBytes) {
      this.#full = true;
      this.#options.onLimit();
      return;
    }
    this.#push(text);
  }

  /** A line of the service's own, for which there is always room. */
  note(line: string): void {
    this.#push(line);
  }

  #push(line: string): void {
    this.#pending.push(line);
    this.#timer ??= setTimeout(() => void this.flush(), INTERVAL_MS);
  }

  /** Writes what waits; resolves when it is durable. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { builds, claim, onWritten, onFailure } = this.#options;
    this.#writing = this.#writing.then(async () => {
      const lines = this.#pending;
      if (lines.length === 0) return;
      this.#pending = [];
      try {
        if (!(await builds.appendLog(claim, lines))) throw new Error('the claim is lost');
        onWritten();
      } catch (error) {
        onFailure(error);
      }
    });
    return this.#writing;
  }
}
