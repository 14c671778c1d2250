import type { DockerfileFeature } from '@decant/context';
import type { ProgressEvent } from '@decant/core';

export type BuilderName = 'docker-buildkit' | 'docker' | 'buildah' | 'podman';
export type Architecture = 'amd64' | 'arm64';
export type NetworkMode = 'default' | 'none' | 'host';
/**
 * What a build does with the results of earlier steps: `use` takes them, `ignore` runs every step and leaves them for
 * the next build as they were, `refresh` runs every step and puts the new results in their place.
 */
export type CacheMode = 'use' | 'ignore' | 'refresh';
/** Forms in which an engine hands out an image. */
export type OutputForm = 'docker-archive' | 'oci-layout';

/** What a driver can do; a request that needs more is refused before any work. */
export interface BuilderCapabilities {
  /** The only architecture it builds for: the one of the machine the engine runs on. */
  readonly architecture: Architecture;
  readonly features: ReadonlySet<DockerfileFeature>;
  readonly networks: readonly NetworkMode[];
  readonly cacheModes: readonly CacheMode[];
  /** Whether steps can be given secrets that do not stay in the image. */
  readonly secrets: boolean;
  /** Whether `RUN --mount=type=cache` is there. */
  readonly cacheMounts: boolean;
  /** Whether the engine itself would obey `NAME.dockerignore` beside the Dockerfile; builds through a driver are filtered before. */
  readonly ownIgnoreFile: boolean;
  /** Whether equal builds can be told to give equal image ids, whenever they run. */
  readonly reproducible: boolean;
  readonly outputs: readonly OutputForm[];
  /** Whether stages that the target does not need are left out; else all up to the target run. */
  readonly skipsUnusedStages: boolean;
  /** Whether the engine runs as an ordinary user. */
  readonly rootless: boolean;
}

/**
 * What is built. Nothing here depends on how the files are found, so a context on disk and one in memory
 * look the same to a driver.
 */
export interface BuildSource {
  readonly dockerfile: {
    /** As the user knows it, for messages. */
    readonly displayPath: string;
    readonly bytes: Uint8Array;
  };
  /** Writes the files that belong to the context, and no others, into an empty directory. */
  materialize(directory: string, options: { readonly signal?: AbortSignal | undefined }): Promise<unknown>;
}

/** A value that steps can mount and that stays out of the image, its history, the logs and the cache. */
export type BuildSecret =
  | {
      readonly id: string;
      /** File with the value, readable by the caller only; at most 500 KiB. */
      readonly file: string;
    }
  | {
      readonly id: string;
      /** The value itself, for example of an environment variable; text without NUL, at most 100 KiB. */
      readonly value: string;
    };

/** How to log in to a registry, for one call. */
export interface RegistryLogin {
  readonly username: string;
  readonly password: string;
}

/** Logins by registry: `HOST[:PORT]`, and `docker.io` for Docker Hub. */
export type RegistryLogins = Readonly<Record<string, RegistryLogin>>;

export interface BuildRequest {
  readonly context: BuildSource;
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  /** Stage to build, by its name or its index from 0; default: the last. */
  readonly target?: string | undefined;
  readonly platform?: `linux/${Architecture}` | undefined;
  /** Network of RUN steps; default `default`. */
  readonly network?: NetworkMode | undefined;
  /** Default `use`. */
  readonly cache?: CacheMode | undefined;
  readonly secrets?: readonly BuildSecret[] | undefined;
  /** Logins for the registries of base images, on top of those the user keeps; forgotten when the build ends. */
  readonly auth?: RegistryLogins | undefined;
  /**
   * Give equal builds equal image ids, with all times of the image at 1970; such a build uses no cache and keeps no
   * SHELL and HEALTHCHECK. Default false.
   */
  readonly reproducible?: boolean | undefined;
  /** Name the engine keeps the image under, `name` or `name:tag`; default: none. */
  readonly tag?: string | undefined;
  /** An existing private directory for what the build needs on disk; what is put there is removed again. */
  readonly workDirectory: string;
}

/** Log lines, warnings and progress by step (`items` of `totalItems`), all of the stage `build`. */
export type BuildEvent = Extract<ProgressEvent, { type: 'log' | 'warning' | 'stage-progress' }>;

export interface ExportedImage {
  readonly kind: 'docker-archive';
  readonly file: string;
}

export interface ExportedLayout {
  /** Of the image's manifest. */
  readonly digest: string;
  /** Bytes of its layers, which are not compressed. */
  readonly layerBytes: number;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** A finished build. Disposing of it removes the files it exported; the image stays with the engine as its cache. */
export interface BuildResult extends AsyncDisposable {
  /** The engine's image id, `sha256:` and 64 digits: it names the same bytes whatever tags do. */
  readonly image: string;
  readonly architecture: Architecture;
  /** For people: the engine and its version. */
  readonly engine: string;
  /**
   * Writes the image as an archive of the `docker save` form, with uncompressed layers, into the directory.
   * @throws BUILD_FAILED when the engine cannot write it (an image without any layer is such a case).
   */
  exportImage(directory: string, options?: CallOptions): Promise<ExportedImage>;
  /**
   * Writes the image as an OCI layout into a directory that is missing or empty, each layer once, as it comes from the
   * engine. It is complete or not there, and belongs to the caller. @throws BUILD_FAILED, OCI_INVALID, DISK_FULL.
   */
  exportLayout(directory: string, options?: CallOptions): Promise<ExportedLayout>;
}

export interface BuilderDriver {
  readonly name: BuilderName;
  /** For people: the engine and its version. */
  readonly engine: string;
  readonly capabilities: BuilderCapabilities;
  /**
   * Builds, yielding events as they come. Aborting, or leaving the generator early, ends the build and all it started.
   * @throws DOCKERFILE_UNSUPPORTED, DOCKERFILE_INVALID, BUILD_PLATFORM_UNSUPPORTED, USAGE before any work;
   * BUILD_STEP_FAILED, BUILD_BASE_UNAVAILABLE, UNAUTHORIZED, BUILD_FAILED, BUILD_ENGINE_MISSING, DISK_FULL.
   */
  build(request: BuildRequest, options?: CallOptions): AsyncGenerator<BuildEvent, BuildResult>;
  /** Makes an image of one layer out of a plain root filesystem archive. */
  importBase(base: { readonly tarFile: string; readonly reference: string }, options?: CallOptions): Promise<void>;
  /** Whether the engine has the image locally; nothing is pulled. */
  imageExists(reference: string, options?: CallOptions): Promise<boolean>;
  /** Removes an image or name; one that is not there is no error. */
  removeImage(reference: string, options?: CallOptions): Promise<void>;
  /** Removes what builds of processes that are gone left in the engine; returns how many things were removed. */
  cleanUpLeftovers(options?: CallOptions): Promise<number>;
}
