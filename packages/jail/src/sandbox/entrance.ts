/** What it takes to enter a sandbox. */
export interface SandboxEntrance {
  /** Host id of the process that holds the namespaces, and what its user namespace is called. */
  readonly holder: number;
  readonly userNamespace: string;
  /** First host id, and how many. */
  readonly base: number;
  readonly ids: number;
  readonly groupFiles: readonly string[];
  readonly processes: number;
  readonly filter: Uint8Array;
}
