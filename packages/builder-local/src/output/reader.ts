import type { BuildEvent } from '../driver.ts';

/** What an engine said about its own failure. */
export interface FailureReport {
  /** `invalid`: the Dockerfile; `base`: an image it starts from or copies from; `front-end`: a `# syntax=` image. */
  readonly kind: 'step' | 'base' | 'front-end' | 'invalid' | 'engine' | 'other';
  /** As the engine counts, for example `3/5` or `builder 2/4`. */
  readonly step?: string | undefined;
  readonly command?: string | undefined;
  readonly exitCode?: number | undefined;
  /** The image of a `base` failure. */
  readonly image?: string | undefined;
  /** The engine's own reason, one line. */
  readonly reason: string;
  /** Last lines of output of the failed step. */
  readonly lastLines: readonly string[];
}

/** Reads the output of one engine's build, line by line. */
export interface OutputReader {
  line(line: string, stream: 'stdout' | 'stderr'): readonly BuildEvent[];
  failure(): FailureReport;
}

const KEPT_LINES = 20;
const LONGEST_KEPT_LINE = 2000;

/** The last lines of the running step. */
export class LastLines {
  #lines: string[] = [];

  add(line: string): void {
    this.#lines.push(line.length > LONGEST_KEPT_LINE ? `${line.slice(0, LONGEST_KEPT_LINE)}…` : line);
    if (this.#lines.length > KEPT_LINES) this.#lines.shift();
  }

  clear(): void {
    this.#lines = [];
  }

  get all(): readonly string[] {
    return this.#lines;
  }
}

/** Escape sequences of terminals (CSI and OSC) and other control bytes, and all but the last state of a line that redraws itself. */
export function plain(line: string): string {
  const text = line
    // eslint-disable-next-line no-control-regex
    .replace(/\u001B\[[0-?]*[ -/]*[@-~]|\u001B\][^\u0007\u001B]*(?:\u0007|\u001B\\)|\u001B[@-Z\\-_]/g, '')
    .replace(/\r+$/, '');
  // eslint-disable-next-line no-control-regex
  return text.slice(text.lastIndexOf('\r') + 1).replace(/[\u0000-\u0008\u000B-\u001F\u007F]/g, '');
}

export const log = (line: string, stream: 'stdout' | 'stderr'): BuildEvent => ({
  type: 'log',
  stage: 'build',
  stream,
  line,
});

export const progress = (items: number, totalItems: number): BuildEvent => ({
  type: 'stage-progress',
  stage: 'build',
  items,
  totalItems,
});

/** Whether the reason is that the engine's service or program is not there. */
export function isEngineGone(text: string): boolean {
  return /^(setpriv|unshare): failed to execute |cannot connect to the docker daemon|error during connect|docker daemon is not running/im.test(
    text,
  );
}
