/**
 * A moment of a bottle's life at which it may be cut off, with the kind of the resource:
 *
 * - `claim`: nothing is written yet
 * - `acquire`: the claim is on the disk, the acquisition has not begun
 * - `acquired`: the resource is held
 * - `release`: letting it go has not begun
 * - `released`: it is let go, and the ledger does not say so yet
 */
export type FaultPoint = `${'claim' | 'acquire' | 'acquired' | 'release' | 'released'}:${string}`;

/**
 * Called at every point: what it throws is thrown there, what it returns is awaited. For tests that cut a bottle off;
 * only a caller's option sets it.
 */
export type FaultHook = (point: FaultPoint) => void | Promise<void>;
