import type { AuditEvent } from '../audit/audit-event.ts';
import { shownHost } from '../net/name-entropy.ts';

/** Denials a second that get an event each; the rest of that second is counted by type and rule. */
const DENIALS_PER_SECOND = 200;
const BATCH = 500;

export interface EventSink {
  /** Sends a batch; the callback comes when it has left this process. */
  send(events: readonly AuditEvent[], done: () => void): void;
}

/**
 * Collects what the fence decides. Nothing that was let through goes unrecorded: while too much waits to be sent,
 * {@link backlogged} is true and nothing may pass. Denials, of which a bottle can make any number, are counted together beyond a rate.
 */
export class Recorder {
  readonly #sink: EventSink;
  readonly #most: number;
  readonly #now: () => number;
  #batch: AuditEvent[] = [];
  #scheduled = false;
  #waiting = 0;
  #second = 0;
  #denials = 0;
  readonly #merged = new Map<string, { readonly event: AuditEvent; count: number }>();
  #mergeTimer: NodeJS.Timeout | undefined;

  constructor(sink: EventSink, most: number, now: () => number = Date.now) {
    this.#sink = sink;
    this.#most = most;
    this.#now = now;
  }

  get backlogged(): boolean {
    return this.#waiting + this.#batch.length >= this.#most;
  }

  record(event: Omit<AuditEvent, 'time'>): void {
    const whole: AuditEvent = {
      ...event,
      time: new Date(this.#now()).toISOString(),
      ...cut('rule', event.rule, 256),
      // What was denied may be a name that is made of data, and the audit is no place for it.
      ...cut('host', event.decision === 'deny' ? shownHost(event.host ?? '') || undefined : event.host, 253),
      ...cut('path', event.path, 1024),
      ...cut('method', event.method, 32),
      ...cut('reason', event.reason, 512),
    };
    if (event.decision === 'deny' && !this.#admit()) this.#merge(whole);
    else this.#push(whole);
  }

  /** Sends what waits at once. */
  flush(): void {
    clearTimeout(this.#mergeTimer);
    this.#mergeTimer = undefined;
    for (const { event, count } of this.#merged.values()) this.#batch.push({ ...event, count });
    this.#merged.clear();
    this.#send();
  }

  #admit(): boolean {
    const second = Math.floor(this.#now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#denials = 0;
    }
    return ++this.#denials <= DENIALS_PER_SECOND && !this.backlogged;
  }

  #merge({ time, type, decision, rule, transport }: AuditEvent): void {
    const key = `${type} ${rule} ${transport ?? ''}`;
    const known = this.#merged.get(key);
    if (known !== undefined) {
      known.count++;
      return;
    }
    const reason = 'Too many of these came in one second to list each.';
    this.#merged.set(key, { event: { time, type, decision, rule, transport, reason }, count: 1 });
    this.#mergeTimer ??= setTimeout(() => this.flush(), 1000);
  }

  #push(event: AuditEvent): void {
    this.#batch.push(event);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#send();
    });
  }

  #send(): void {
    while (this.#batch.length > 0) {
      const events = this.#batch.splice(0, BATCH);
      this.#waiting += events.length;
      this.#sink.send(events, () => {
        this.#waiting -= events.length;
      });
    }
  }
}

/** Printable ASCII and at most so many characters; what was cut ends in an ellipsis. */
function cut(
  name: 'rule' | 'host' | 'path' | 'method' | 'reason',
  text: string | undefined,
  most: number,
): Partial<AuditEvent> {
  if (text === undefined) return {};
  const plain = text.replace(/[^\x20-\x7e]/g, '?');
  return { [name]: plain.length <= most ? plain : `${plain.slice(0, most - 3)}...` };
}
