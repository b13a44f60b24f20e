// A training with the npm package `mlflow` (a client for Node.js, by its own author and not MLflow's).
//
// Usage: node javascript.js MODULES RECORD.json, where MODULES is a folder `node_modules` that holds the
// package. The settings are MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN. The requests are the package's
// own; MLflow's own JavaScript packages trace only, and the registry of this project does not have them.
'use strict'

const fs = require('fs')
const path = require('path')

const [modules, recordFile] = process.argv.slice(2)
const MLflow = require(path.join(modules, 'mlflow'))
const {RunStatus, ViewType} = require(path.join(modules, 'mlflow', 'enum'))

const BASE_MS = 1700000000000

async function main() {
  const {Experiments, Runs, Metrics, Artifacts} = new MLflow({
    endpoint: process.env.MLFLOW_TRACKING_URI,
    headers: {Authorization: `Bearer ${process.env.MLFLOW_TRACKING_TOKEN}`},
  })
  const {experiment_id} = await Experiments.create({name: 'javascript'})
  const created = await Runs.create({
    experiment_id,
    user_id: 'node',
    start_time: BASE_MS,
    tags: [{key: 'mlflow.runName', value: 'in JavaScript'}],
  })
  const {run_id} = created.run.info
  for (let step = 0; step < 3; step++) {
    await Runs.logMetric({run_id, key: 'loss', value: 1 / (step + 1), timestamp: BASE_MS + step, step})
  }
  await Runs.logParameter({run_id, key: 'lr', value: '0.1'})
  await Runs.setTag({run_id, key: 'stage', value: 'last'})
  await Runs.setTag({run_id, key: 'gone', value: 'x'})
  await Runs.deleteTag({run_id, key: 'gone'})
  await Runs.logBatch({
    run_id,
    metrics: [{key: 'accuracy', value: 0.5, timestamp: BASE_MS, step: 0}],
    params: [{key: 'depth', value: '3'}],
    tags: [{key: 'batched', value: 'ja ü'}],
  })
  await Runs.update({run_id, status: RunStatus.FINISHED, end_time: BASE_MS + 60000})
  await Experiments.update({experiment_id, new_name: 'renamed javascript'})
  const other = await Runs.create({experiment_id, start_time: BASE_MS})
  await Runs.delete({run_id: other.run.info.run_id})
  await Runs.restore({run_id: other.run.info.run_id})
  await Runs.delete({run_id: other.run.info.run_id})

  const {run} = await Runs.get({run_id})
  const {experiments} = await Experiments.list()
  const {runs} = await Runs.search({
    experiment_ids: [experiment_id],
    filter: "params.lr = '0.1'",
    run_view_type: ViewType.ACTIVE_ONLY,
  })
  const {metrics} = await Metrics.getHistory({run_id, metric_key: 'loss'})
  const listed = await Artifacts.list({run_id})
  const experiment = await Experiments.get({experiment_id})
  let refused = null
  await Runs.get({run_id: '0'.repeat(32)}).catch(error => {
    refused = error.message
  })
  fs.writeFileSync(
    recordFile,
    JSON.stringify({
      run_id,
      deleted: other.run.info.run_id,
      status: run.info.status,
      params: run.data.params,
      times: [run.info.start_time, run.info.end_time],
      experiments: experiments.map(item => item.name),
      experiment: experiment.experiment.name,
      found: runs.map(item => item.info.run_id),
      history: metrics.map(item => [item.step, item.timestamp, item.value]),
      root: listed.root_uri,
      refused,
    })
  )
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
