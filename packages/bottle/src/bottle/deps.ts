import type { Backend, BottleImage } from '../backends/backend.ts';
import type { Fence, FenceOptions } from '../fence/fence.ts';
import type { BottlePlan } from '../plan/plan.ts';
import type { FaultHook } from '../stack/fault-points.ts';
import type { Bottle } from './bottle.ts';

/** An image that is ready to be a machine's disk, for as long as it is not disposed. */
export interface ResolvedImage extends AsyncDisposable {
  readonly image: BottleImage;
}

export interface ImageRequest {
  readonly ref: string;
  /** An empty folder for sockets and the like; goes with the bottle. */
  readonly scratchDirectory: string;
  readonly signal?: AbortSignal | undefined;
}

export interface BottleEvent {
  readonly type: 'stage';
  readonly name: 'claimed' | 'image' | 'prepared' | 'fenced' | 'started' | 'probed' | 'provisioned';
  /** Since the launch began, milliseconds. */
  readonly elapsedMs: number;
}

export interface OpenBottleDeps {
  /** The folder of bottles: ledgers, state folders, audits. */
  readonly directory: string;
  readonly backend: Backend;
  readonly resolveImage: (request: ImageRequest) => Promise<ResolvedImage>;
  /** Values of the names in the plan. */
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Opens the fence; default: a new one. A pool of prepared ones gives another. */
  readonly openFence?: ((options: FenceOptions) => Promise<Fence>) | undefined;
  /** Runs once the fence has been proven and before anything else does. Sees the handle, never a backend. */
  readonly provision?: ((plan: BottlePlan, bottle: Bottle) => Promise<void>) | undefined;
  readonly onEvent?: ((event: BottleEvent) => void) | undefined;
  readonly faultHook?: FaultHook | undefined;
  /** Aborting takes the bottle down, also after the launch. */
  readonly signal?: AbortSignal | undefined;
}
