import type { FenceOptions } from '../fence/fence.ts';
import type { EgressPolicy } from '../net/policy.ts';

/** What a test asks of the process that plays the internet. */
export type Order =
  | { readonly type: 'open'; readonly options: Omit<FenceOptions, 'onAudit' | 'network' | 'signal' | 'sidecarUrl'> }
  | { readonly type: 'reload'; readonly policy: EgressPolicy }
  | { readonly type: 'stats' | 'ended' | 'close' | 'seen' };

export interface Question {
  readonly id: number;
  readonly order: Order;
}

export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: { readonly code: string | undefined; readonly message: string } };
