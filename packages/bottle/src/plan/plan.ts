import type { Backend, BottleImage, BottleLimits, Mount } from '../backends/backend.ts';
import type { EgressPolicy } from '../net/policy.ts';

/** How the agent gets its prompt. */
export type PromptMode =
  /** As the last argument of its command. */
  | 'argument'
  /** On standard input, which then ends. */
  | 'stdin'
  /** In a file below `/tmp`, whose path is the last argument and the variable DECANT_PROMPT_FILE. */
  | 'file';

/** What runs in a bottle. */
export interface AgentPlan {
  /** Program and arguments; empty: the image's own command. */
  readonly command: readonly string[];
  /** Undefined: it gets none. */
  readonly prompt: string | undefined;
  readonly promptMode: PromptMode;
  /** Names only, sorted: the values are handed in at the launch and stand in no plan. */
  readonly environmentNames: readonly string[];
  /** Undefined: the image's. */
  readonly user: string | undefined;
  readonly workingDir: string | undefined;
}

/** What is asked for, as a manifest or command line has it: checked, with every default filled in. */
export interface BottleSpec {
  readonly name: string;
  /** Reference of an image. */
  readonly image: string;
  readonly backend: Backend['name'];
  readonly egress: EgressPlan;
  readonly mounts: readonly Mount[];
  readonly limits: BottleLimits;
  readonly agent: AgentPlan;
}

export interface EgressPlan {
  /**
   * No fence, since there is no route: the network namespace has nothing in it but loopback. What is tried there is refused by
   * the kernel and recorded by nobody. Default false.
   */
  readonly sealed?: boolean | undefined;
  readonly policy: EgressPolicy;
  /** `ADDRESS:PORT` (IPv6 in brackets) of the resolvers that look allowed names up; empty: the system's. */
  readonly resolvers: readonly string[];
  /** Certificates (PEM) that servers are trusted by, besides the system's. */
  readonly upstreamCaFile: string | undefined;
}

/**
 * What a bottle will be, before anything happens. Immutable and serialisable; it holds no secret value. Stages of a
 * launch return new plans with what they settled.
 */
export interface BottlePlan extends BottleSpec {
  readonly version: 1;
  /** What slugs are made of; which one is free shows at the launch. */
  readonly slugBase: string;
  /** How the backend is weaker than the strongest one. */
  readonly weaknesses: readonly string[];
  /** Why the backend cannot be used here; empty when it can. */
  readonly obstacles: readonly string[];
  readonly slug?: string | undefined;
  readonly endpoints?: BottleEndpoints | undefined;
  readonly certificate?: BottleCertificate | undefined;
  readonly artifact?: BottleArtifact | undefined;
}

/** Where the fence listens. */
export interface BottleEndpoints {
  readonly networkNamespace: string;
  /** Value of the proxy variables. */
  readonly proxy: string | undefined;
}

export interface BottleCertificate {
  /** SHA-256 of the certificate of the bottle's authority, hexadecimal. */
  readonly fingerprint: string;
  /** ISO 8601. */
  readonly notAfter: string;
}

export type BottleArtifact = Pick<BottleImage, 'id' | 'filesystem'>;
