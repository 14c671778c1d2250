import { converse, type Conversation } from './conversation.ts';
import type { StartProgram } from './entrance.ts';
import { FILE_PROGRAM, FILE_STREAMS } from './files.ts';
import { JOIN_PROGRAM, JOIN_STREAMS } from './joiners.ts';
import { SETUP_PROGRAM, SETUP_STREAMS } from './setup-program.ts';

const MOST = 64;
/** The next ones are started when what took the last no longer needs the processor, in milliseconds. */
const REFILL_AFTER_MS = 500;
/** What a sandbox takes until its first command runs; the second joiner is for the command after that. */
const PROGRAMS = [
  { program: SETUP_PROGRAM, streams: SETUP_STREAMS, perSandbox: 1 },
  { program: JOIN_PROGRAM, streams: JOIN_STREAMS, perSandbox: 2 },
  { program: FILE_PROGRAM, streams: FILE_STREAMS, perSandbox: 1 },
];

export interface SandboxReserveOptions {
  /** Sandboxes that programs stand ready for, 1 to 64; four processes each. */
  readonly size: number;
}

/**
 * The programs that set up and join sandboxes, started ahead and waiting to be told which: starting them is half of what it
 * takes to open a sandbox. Each is used once. They know nothing of any sandbox yet, and end with this process.
 */
export class SandboxReserve implements AsyncDisposable {
  readonly #size: number;
  readonly #ready = new Map<string, Conversation[]>(PROGRAMS.map(({ program }) => [program, []]));
  #refill: NodeJS.Timeout | undefined;
  #isOpen = true;

  /** @throws RangeError for a size that is none. */
  constructor({ size }: SandboxReserveOptions) {
    if (!Number.isInteger(size) || size < 1 || size > MOST)
      throw new RangeError(`a reserve is for 1 to ${MOST} sandboxes`);
    this.#size = size;
    this.fill();
  }

  /** How many programs stand ready now. */
  get ready(): number {
    return [...this.#ready.values()].reduce((sum, talks) => sum + talks.filter(isAlive).length, 0);
  }

  /** Starts what is missing now, and not when nothing was taken for a while. */
  fill(): void {
    if (!this.#isOpen) return;
    clearTimeout(this.#refill);
    for (const { program, streams, perSandbox } of PROGRAMS) {
      const talks = this.#ready.get(program)!.filter(isAlive);
      while (talks.length < perSandbox * this.#size) talks.push(converse(program, streams));
      this.#ready.set(program, talks);
    }
  }

  /** For openSandbox: a program that stands ready, or one that is started now. */
  readonly start: StartProgram = (program, streams) => {
    const talks = this.#ready.get(program);
    if (talks === undefined || !this.#isOpen) return converse(program, streams);
    clearTimeout(this.#refill);
    this.#refill = setTimeout(() => this.fill(), REFILL_AFTER_MS).unref();
    for (let talk = talks.shift(); talk !== undefined; talk = talks.shift()) if (isAlive(talk)) return talk;
    return converse(program, streams);
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#refill);
    const talks = [...this.#ready.values()].flatMap((list) => list.splice(0));
    for (const talk of talks) talk.end();
    await Promise.allSettled(talks.map(({ exited }) => exited));
  }
}

function isAlive({ child }: Conversation): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}
