/** A job as its worker holds it. `token` grows with every claim: a commit with an older one is refused. */
export interface ClaimedJob {
  readonly id: string;
  readonly kind: string;
  readonly payload: unknown;
  /** Fencing token of this claim. */
  readonly token: number;
  /** 1 for the first claim. */
  readonly attempt: number;
}

/** Work that survives the process that wanted it. Leases run on the store's clock. */
export interface JobQueue {
  /** Adds a job unless one with this `key` exists; returns the id of the one that does. */
  enqueue(kind: string, key: string, payload: unknown): Promise<string>;
  /** Takes the oldest job of these kinds that nobody holds, for `leaseMs`. */
  claim(kinds: readonly string[], leaseMs: number): Promise<ClaimedJob | undefined>;
  /** Extends the lease. Returns false when the claim is lost: stop working. */
  renew(job: ClaimedJob, leaseMs: number): Promise<boolean>;
  /** Removes the job when this claim still holds. Returns false when it does not. */
  finish(job: ClaimedJob): Promise<boolean>;
  /** Gives the job back, to be claimed again after `delayMs`. */
  release(job: ClaimedJob, delayMs: number): Promise<boolean>;
}
