export interface NativeBackendOptions {
  /** Folders that no mount may show: where decant keeps its images, keys and bottles. */
  readonly hiddenFolders: readonly string[];
}
