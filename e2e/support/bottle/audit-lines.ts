import type { AuditEvent } from '../../../packages/bottle/src/index.ts';

/** A line of an audit file, as far as the suite looks at it. */
export type AuditLine = Partial<AuditEvent> & { readonly event?: Partial<AuditEvent> };
