import 'vitest';

declare module 'vitest' {
  /** What `setup.ts` provides to the `system` and `e2e` projects; a test gets it with `inject`. */
  interface ProvidedContext {
    /** Full paths of the programs that tests use, by name; null for one that is not installed. */
    tools: Record<string, string | null>;
    /** Address of a Docker daemon that answers, also in DOCKER_HOST; null when there is none. */
    dockerHost: string | null;
    /** Why `dockerHost` is null; empty when it is not. */
    dockerReason: string;
    /** A folder that is removed after the run. */
    tempRoot: string;
  }
}
