/** The contract suites of the ports: for tests in this workspace, not published. */
export { objectStoreContract, type ObjectStoreFixture } from './ports/object-store.contract.ts';
