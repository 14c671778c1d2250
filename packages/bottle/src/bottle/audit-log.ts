import type { AuditEvent } from '../audit/audit-event.ts';

/** Takes what the fence decided. Disposing writes what is left. */
export interface AuditLog extends AsyncDisposable {
  /** @throws when it cannot be kept: nothing may pass that is not recorded. */
  record(event: AuditEvent): void;
}
