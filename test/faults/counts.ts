/** How often each fault happens, and the seed of when: small numbers by default; `npm run test:faults` sets them. */
export const COUNTS = {
  seed: fromEnvironment("FAULTS_SEED", Date.now() % 1_000_000),
  writerKills: fromEnvironment("FAULTS_WRITER_KILLS", 2),
  advisoryFaults: fromEnvironment("FAULTS_ADVISORY_FAULTS", 3),
  relayFaults: fromEnvironment("FAULTS_RELAY_FAULTS", 3),
  timerKills: fromEnvironment("FAULTS_TIMER_KILLS", 1),
  projectorKills: fromEnvironment("FAULTS_PROJECTOR_KILLS", 2),
  treeKills: fromEnvironment("FAULTS_TREE_KILLS", 2),
  watchRestarts: fromEnvironment("FAULTS_WATCH_RESTARTS", 3),
  privacyKills: fromEnvironment("FAULTS_PRIVACY_KILLS", 2),
  courierKills: fromEnvironment("FAULTS_COURIER_KILLS", 2),
  malformedRequests: fromEnvironment("FAULTS_MALFORMED_REQUESTS", 1500),
  stepDowns: fromEnvironment("FAULTS_STEP_DOWNS", 1),
  primaryKills: fromEnvironment("FAULTS_PRIMARY_KILLS", 1),
  notifierKills: fromEnvironment("FAULTS_NOTIFIER_KILLS", 2),
  freezes: fromEnvironment("FAULTS_FREEZES", 1),
} as const;

function fromEnvironment(name: string, otherwise: number): number {
  const value = process.env[name];
  return value === undefined ? otherwise : Number(value);
}
