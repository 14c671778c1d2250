import { converse, hex, type Conversation } from './conversation.ts';
import { joinProgram } from './join-program.ts';
import type { SandboxEntrance, StartProgram } from './entrance.ts';

export const JOIN_PROGRAM = joinProgram();
export const JOIN_STREAMS = ['pipe', 'pipe', 'pipe'] as const;
/** Starting a process holds this one up for some milliseconds, so a command that ends sooner is not made to wait for it. */
const REFILL_AFTER_MS = 25;
const REFILL_AFTER_END_MS = 2;

/**
 * Programs that join a sandbox for one command each. One is kept in reserve, started and joined ahead, because starting it
 * takes longer than all that is left to do then.
 */
export class Joiners implements Disposable {
  #spare: Conversation | undefined;
  #entrance: SandboxEntrance | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOpen = true;

  /** The first reserve starts while the sandbox is set up, and joins when there is one. */
  constructor(startProgram: StartProgram) {
    this.#spare = start(startProgram);
  }

  open(entrance: SandboxEntrance): void {
    this.#entrance = entrance;
    if (this.#spare !== undefined) join(this.#spare, entrance);
  }

  /** One that has joined, or fails to, for the caller to use and end. */
  take(entrance: SandboxEntrance): Conversation {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare !== undefined && spare.child.exitCode === null && spare.child.signalCode === null) return spare;
    const started = start(entrance.start);
    join(started, entrance);
    return started;
  }

  /** Puts one in reserve again when the command of this one has ended, or runs for a while. */
  refillAfter({ closed }: Conversation): void {
    this.#refillIn(REFILL_AFTER_MS);
    void closed.then(() => this.#refillIn(REFILL_AFTER_END_MS));
  }

  #refillIn(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#isOpen && this.#spare === undefined) this.#timer = setTimeout(() => this.#refill(), milliseconds);
  }

  #refill(): void {
    if (!this.#isOpen || this.#spare !== undefined || this.#entrance === undefined) return;
    this.#spare = start(this.#entrance.start);
    join(this.#spare, this.#entrance);
  }

  [Symbol.dispose](): void {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    this.#spare?.end();
    this.#spare = undefined;
  }
}

function start(startProgram: StartProgram): Conversation {
  const talk = startProgram(JOIN_PROGRAM, JOIN_STREAMS);
  // A command that does not read its input is judged by its exit code.
  talk.child.stdin?.on('error', () => undefined);
  return talk;
}

/** A joiner whose standard input is that of this process. */
export function startInherited(entrance: SandboxEntrance): Conversation {
  const talk = converse(JOIN_PROGRAM, ['inherit', 'pipe', 'pipe']);
  join(talk, entrance);
  return talk;
}

/** Says which sandbox to join. */
export function join(talk: Conversation, { holder, userNamespace, base, groupFiles }: SandboxEntrance): void {
  talk.send('join', holder, hex(userNamespace), base, ...groupFiles.map(hex));
}
