BEGIN TRANSACTION;
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE api_keys (
	key_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	prefix TEXT NOT NULL, 
	secret_hash BLOB NOT NULL, 
	role TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	expires_at_ms BIGINT, 
	revoked_at_ms BIGINT, 
	last_used_ms BIGINT, 
	CONSTRAINT pk_api_keys PRIMARY KEY (key_id), 
	CONSTRAINT uq_api_keys_name UNIQUE (name), 
	CONSTRAINT uq_api_keys_prefix UNIQUE (prefix)
);
CREATE TABLE artifact_roots (
	root_id INTEGER NOT NULL, 
	prefix TEXT NOT NULL, 
	run_pk BIGINT, 
	model_pk BIGINT, 
	CONSTRAINT pk_artifact_roots PRIMARY KEY (root_id), 
	CONSTRAINT uq_artifact_roots_prefix UNIQUE (prefix)
);
INSERT INTO "artifact_roots" VALUES(1,'1/e4d33e8a9766404da1171629561da28b/artifacts',1,NULL);
CREATE TABLE artifacts (
	root_id BIGINT NOT NULL, 
	path TEXT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	md5 BLOB NOT NULL, 
	content BLOB, 
	spool_name TEXT, 
	upstream_path TEXT, 
	updated_at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_artifacts PRIMARY KEY (root_id, path)
)
 WITHOUT ROWID

;
INSERT INTO "artifacts" VALUES(1,'notes.txt',28,X'48DF4B556DD4F114FC6553D3806A3C85',X'61636B6E6F776C65646765642C20616E64206E657665722073656E74',NULL,NULL,1795376313381);
CREATE TABLE assessments (
	assessment_pk INTEGER NOT NULL, 
	assessment_id TEXT NOT NULL, 
	trace_pk BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	value TEXT NOT NULL, 
	error TEXT, 
	created_at_ms BIGINT NOT NULL, 
	last_updated_ms BIGINT NOT NULL, 
	source_type TEXT NOT NULL, 
	source_id TEXT, 
	run_id TEXT, 
	span_id TEXT, 
	rationale TEXT, 
	overrides TEXT, 
	is_valid SMALLINT NOT NULL, 
	metadata TEXT, 
	number DOUBLE, 
	is_number SMALLINT NOT NULL, 
	principal TEXT, 
	CONSTRAINT pk_assessments PRIMARY KEY (assessment_pk), 
	CONSTRAINT uq_assessments_assessment_id UNIQUE (assessment_id)
);
CREATE TABLE barriers (
	lane_id BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	awaited_lane_id BIGINT NOT NULL, 
	awaited_position BIGINT NOT NULL, 
	CONSTRAINT pk_barriers PRIMARY KEY (lane_id, position, awaited_lane_id)
)
 WITHOUT ROWID

;
INSERT INTO "barriers" VALUES(3,18,4,1);
CREATE TABLE batches (
	batch_id INTEGER NOT NULL, 
	lane_id BIGINT NOT NULL, 
	first_position BIGINT NOT NULL, 
	last_position BIGINT NOT NULL, 
	parent_batch_id BIGINT, 
	state TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	epoch BIGINT NOT NULL, 
	sent_at_ms BIGINT NOT NULL, 
	empty_reads INTEGER DEFAULT 0 NOT NULL, 
	first_empty_read_ms BIGINT, 
	CONSTRAINT pk_batches PRIMARY KEY (batch_id)
);
INSERT INTO "batches" VALUES(1,3,9,16,NULL,'sent',1,2,1795376313366,0,NULL);
CREATE TABLE dataset_input_tags (
	input_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_dataset_input_tags PRIMARY KEY (input_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE dataset_inputs (
	input_pk INTEGER NOT NULL, 
	run_pk BIGINT NOT NULL, 
	dataset_pk BIGINT NOT NULL, 
	CONSTRAINT pk_dataset_inputs PRIMARY KEY (input_pk), 
	CONSTRAINT uq_dataset_inputs_run_pk_dataset_pk UNIQUE (run_pk, dataset_pk)
);
CREATE TABLE datasets (
	dataset_pk INTEGER NOT NULL, 
	experiment_id BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	source_type TEXT NOT NULL, 
	source TEXT NOT NULL, 
	schema TEXT, 
	profile TEXT, 
	CONSTRAINT pk_datasets PRIMARY KEY (dataset_pk), 
	CONSTRAINT uq_datasets_experiment_id_name_digest UNIQUE (experiment_id, name, digest)
);
CREATE TABLE evaluation_dataset_experiments (
	dataset_pk BIGINT NOT NULL, 
	experiment_id BIGINT NOT NULL, 
	CONSTRAINT pk_evaluation_dataset_experiments PRIMARY KEY (dataset_pk, experiment_id)
)
 WITHOUT ROWID

;
CREATE TABLE evaluation_dataset_tags (
	dataset_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_evaluation_dataset_tags PRIMARY KEY (dataset_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE evaluation_datasets (
	dataset_pk INTEGER NOT NULL, 
	dataset_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	schema TEXT, 
	profile TEXT, 
	created_time_ms BIGINT NOT NULL, 
	last_update_time_ms BIGINT NOT NULL, 
	created_by TEXT, 
	last_updated_by TEXT, 
	principal TEXT, 
	CONSTRAINT pk_evaluation_datasets PRIMARY KEY (dataset_pk), 
	CONSTRAINT uq_evaluation_datasets_dataset_id UNIQUE (dataset_id)
);
CREATE TABLE evaluation_records (
	record_pk INTEGER NOT NULL, 
	record_id TEXT NOT NULL, 
	dataset_pk BIGINT NOT NULL, 
	input_hash TEXT NOT NULL, 
	inputs TEXT NOT NULL, 
	outputs TEXT, 
	expectations TEXT, 
	tags TEXT, 
	source TEXT, 
	created_time_ms BIGINT NOT NULL, 
	last_update_time_ms BIGINT NOT NULL, 
	created_by TEXT, 
	last_updated_by TEXT, 
	CONSTRAINT pk_evaluation_records PRIMARY KEY (record_pk), 
	CONSTRAINT uq_evaluation_records_dataset_pk_input_hash UNIQUE (dataset_pk, input_hash), 
	CONSTRAINT uq_evaluation_records_record_id UNIQUE (record_id)
);
CREATE TABLE experiment_tags (
	experiment_id BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_experiment_tags PRIMARY KEY (experiment_id, "key")
)
 WITHOUT ROWID

;
CREATE TABLE experiments (
	experiment_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	artifact_location TEXT NOT NULL, 
	lifecycle_stage TEXT NOT NULL, 
	creation_time_ms BIGINT NOT NULL, 
	last_update_time_ms BIGINT NOT NULL, 
	born TEXT NOT NULL, 
	workspace_id BIGINT, 
	upstream_id TEXT, 
	upstream_name TEXT NOT NULL, 
	principal TEXT, 
	lane_id BIGINT NOT NULL, 
	CONSTRAINT uq_experiments_name UNIQUE (name), 
	CONSTRAINT fk_experiments_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (workspace_id), 
	CONSTRAINT uq_experiments_upstream_id UNIQUE (upstream_id), 
	CONSTRAINT uq_experiments_upstream_name UNIQUE (upstream_name)
);
INSERT INTO "experiments" VALUES(0,'Default','mlflow-artifacts:/0','active',1795376310452,1795376310452,'proxy',NULL,NULL,'Default',NULL,1);
INSERT INTO "experiments" VALUES(1,'uncertain','mlflow-artifacts:/1','active',1795376310686,1795376310686,'proxy',NULL,'@EXPERIMENT:uncertain@','uncertain',NULL,2);
CREATE TABLE facts (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_facts PRIMARY KEY (name)
);
INSERT INTO "facts" VALUES('installation','aaa24be4c393f31e');
CREATE TABLE journal_entries (
	lane_id BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	payload BLOB NOT NULL, 
	accepted_at_ms BIGINT NOT NULL, 
	principal TEXT, 
	CONSTRAINT pk_journal_entries PRIMARY KEY (lane_id, position)
)
 WITHOUT ROWID

;
INSERT INTO "journal_entries" VALUES(3,16,'LogParam',X'82A36B6579A472617465A576616C7565A3302E31',1795376312369,NULL);
INSERT INTO "journal_entries" VALUES(3,18,'UpdateRun',X'83A6737461747573A846494E4953484544AB656E645F74696D655F6D73CF0000018BD07DFE80A46E616D65C0',1795376313389,NULL);
INSERT INTO "journal_entries" VALUES(4,1,'UploadArtifact',X'86A7726F6F745F696401A470617468A96E6F7465732E747874AD757073747265616D5F70617468A96E6F7465732E747874AA73697A655F62797465731CA36D6435C41048DF4B556DD4F114FC6553D3806A3C85AA73706F6F6C5F6E616D65C0',1795376313381,NULL);
CREATE TABLE journal_points (
	lane_id BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	series_id BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	timestamp_ms BIGINT NOT NULL, 
	value DOUBLE NOT NULL, 
	is_nan SMALLINT NOT NULL, 
	accepted_at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_journal_points PRIMARY KEY (lane_id, position)
)
 WITHOUT ROWID

;
INSERT INTO "journal_points" VALUES(3,9,1,5,1700000000005,7.14285714285714301574e-01,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,10,1,6,1700000000006,8.57142857142857095276e-01,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,11,1,7,1700000000007,1.0,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,12,1,8,1700000000008,1.1428571428571427937e+00,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,13,1,9,1700000000009,1.28571428571428580944e+00,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,14,1,10,1700000000010,1.42857142857142860314e+00,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,15,1,11,1700000000011,1.57142857142857139685e+00,0,1795376312356);
INSERT INTO "journal_points" VALUES(3,17,1,12,1700000000012,9.5,0,1795376313378);
CREATE TABLE lanes (
	lane_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	subject_id BIGINT NOT NULL, 
	last_position BIGINT DEFAULT 0 NOT NULL, 
	settled_position BIGINT DEFAULT 0 NOT NULL, 
	lease_owner TEXT, 
	lease_token TEXT, 
	lease_epoch BIGINT DEFAULT 0 NOT NULL, 
	lease_until_ms BIGINT, 
	not_before_ms BIGINT DEFAULT 0 NOT NULL, 
	failures INTEGER DEFAULT 0 NOT NULL, 
	last_failure TEXT, 
	CONSTRAINT pk_lanes PRIMARY KEY (lane_id)
);
INSERT INTO "lanes" VALUES(1,'experiment',0,0,0,NULL,NULL,0,NULL,0,0,NULL);
INSERT INTO "lanes" VALUES(2,'experiment',1,1,1,NULL,NULL,1,NULL,1795376311974,0,NULL);
INSERT INTO "lanes" VALUES(3,'run_data',1,18,8,'host:11866','a5a312e3531dd874017fcb340280b5df',2,1795376433366,1795376312228,0,NULL);
INSERT INTO "lanes" VALUES(4,'run_artifacts',1,1,0,NULL,NULL,0,NULL,0,0,NULL);
CREATE TABLE logged_model_metrics (
	model_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	timestamp_ms BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	run_pk BIGINT NOT NULL, 
	value DOUBLE NOT NULL, 
	is_nan SMALLINT NOT NULL, 
	dataset_name TEXT, 
	dataset_digest TEXT, 
	CONSTRAINT pk_logged_model_metrics PRIMARY KEY (model_id, "key", timestamp_ms, step, run_pk)
)
 WITHOUT ROWID

;
CREATE TABLE logged_model_params (
	model_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_logged_model_params PRIMARY KEY (model_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE logged_model_tags (
	model_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_logged_model_tags PRIMARY KEY (model_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE logged_models (
	model_pk INTEGER NOT NULL, 
	model_id TEXT NOT NULL, 
	experiment_id BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	artifact_uri TEXT NOT NULL, 
	status TEXT NOT NULL, 
	status_message TEXT, 
	model_type TEXT, 
	source_run_id TEXT, 
	lifecycle_stage TEXT NOT NULL, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	upstream_folder TEXT, 
	born TEXT NOT NULL, 
	principal TEXT, 
	create_fingerprint BLOB, 
	CONSTRAINT pk_logged_models PRIMARY KEY (model_pk), 
	CONSTRAINT uq_logged_models_model_id UNIQUE (model_id)
);
CREATE TABLE model_version_tags (
	model_pk BIGINT NOT NULL, 
	version INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_model_version_tags PRIMARY KEY (model_pk, version, "key")
)
 WITHOUT ROWID

;
CREATE TABLE model_versions (
	model_pk BIGINT NOT NULL, 
	version INTEGER NOT NULL, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	description TEXT, 
	user_id TEXT, 
	current_stage TEXT NOT NULL, 
	source TEXT NOT NULL, 
	storage_location TEXT, 
	run_id TEXT, 
	run_link TEXT, 
	model_id TEXT, 
	status TEXT NOT NULL, 
	status_message TEXT, 
	upstream_version TEXT, 
	principal TEXT, 
	create_fingerprint BLOB, 
	CONSTRAINT pk_model_versions PRIMARY KEY (model_pk, version)
);
CREATE TABLE overflow (
	overflow_id INTEGER NOT NULL, 
	run_pk BIGINT NOT NULL, 
	lane_id BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	payload BLOB NOT NULL, 
	limit_name TEXT NOT NULL, 
	file_number INTEGER, 
	CONSTRAINT pk_overflow PRIMARY KEY (overflow_id)
);
CREATE TABLE params (
	run_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_params PRIMARY KEY (run_pk, "key")
)
 WITHOUT ROWID

;
INSERT INTO "params" VALUES(1,'rate','0.1');
CREATE TABLE parked (
	parked_id INTEGER NOT NULL, 
	lane_id BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	run_pk BIGINT, 
	kind TEXT NOT NULL, 
	payload BLOB NOT NULL, 
	reason TEXT NOT NULL, 
	message TEXT NOT NULL, 
	principal TEXT, 
	accepted_at_ms BIGINT NOT NULL, 
	parked_at_ms BIGINT NOT NULL, 
	decision TEXT, 
	decided_by TEXT, 
	decided_at_ms BIGINT, 
	CONSTRAINT pk_parked PRIMARY KEY (parked_id), 
	CONSTRAINT uq_parked_lane_id_position UNIQUE (lane_id, position)
);
INSERT INTO "parked" VALUES(1,3,8,1,'SetTag',X'82A36B6579A67061726B6564A576616C7565D9657878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878','refused','INVALID_PARAMETER_VALUE: A field of the entity is over the size limit. FieldName=TagValue, Limit=100, Size=101. See https://aka.ms/azure-machine-learning-limits for service limits documentation.',NULL,1795376310699,1795376312220,NULL,NULL,NULL);
CREATE TABLE points (
	series_id BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	timestamp_ms BIGINT NOT NULL, 
	value DOUBLE NOT NULL, 
	is_nan SMALLINT NOT NULL, 
	CONSTRAINT pk_points PRIMARY KEY (series_id, step, timestamp_ms, value, is_nan)
)
 WITHOUT ROWID

;
INSERT INTO "points" VALUES(1,0,1700000000000,0.0,0);
INSERT INTO "points" VALUES(1,1,1700000000001,1.42857142857142849212e-01,0);
INSERT INTO "points" VALUES(1,2,1700000000002,2.85714285714285698425e-01,0);
INSERT INTO "points" VALUES(1,3,1700000000003,4.28571428571428547638e-01,0);
INSERT INTO "points" VALUES(1,4,1700000000004,5.7142857142857139685e-01,0);
INSERT INTO "points" VALUES(1,5,1700000000005,7.14285714285714301574e-01,0);
INSERT INTO "points" VALUES(1,6,1700000000006,8.57142857142857095276e-01,0);
INSERT INTO "points" VALUES(1,7,1700000000007,1.0,0);
INSERT INTO "points" VALUES(1,8,1700000000008,1.1428571428571427937e+00,0);
INSERT INTO "points" VALUES(1,9,1700000000009,1.28571428571428580944e+00,0);
INSERT INTO "points" VALUES(1,10,1700000000010,1.42857142857142860314e+00,0);
INSERT INTO "points" VALUES(1,11,1700000000011,1.57142857142857139685e+00,0);
INSERT INTO "points" VALUES(1,12,1700000000012,9.5,0);
CREATE TABLE registered_model_aliases (
	model_pk BIGINT NOT NULL, 
	alias TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	CONSTRAINT pk_registered_model_aliases PRIMARY KEY (model_pk, alias)
)
 WITHOUT ROWID

;
CREATE TABLE registered_model_tags (
	model_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_registered_model_tags PRIMARY KEY (model_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE registered_models (
	model_pk INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	description TEXT, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	last_version INTEGER DEFAULT 0 NOT NULL, 
	born TEXT NOT NULL, 
	workspace_id BIGINT, 
	upstream_name TEXT NOT NULL, 
	principal TEXT, 
	lane_id BIGINT NOT NULL, 
	CONSTRAINT uq_registered_models_name UNIQUE (name), 
	CONSTRAINT fk_registered_models_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (workspace_id)
);
CREATE TABLE run_models (
	run_pk BIGINT NOT NULL, 
	direction TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	CONSTRAINT pk_run_models PRIMARY KEY (run_pk, direction, model_id, step)
)
 WITHOUT ROWID

;
CREATE TABLE runs (
	run_pk INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	experiment_id BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	status TEXT NOT NULL, 
	start_time_ms BIGINT, 
	end_time_ms BIGINT, 
	artifact_uri TEXT NOT NULL, 
	lifecycle_stage TEXT NOT NULL, 
	deleted_at_ms BIGINT, 
	parent_run_id TEXT, 
	born TEXT NOT NULL, 
	workspace_id BIGINT, 
	upstream_id TEXT, 
	create_way TEXT, 
	create_fingerprint BLOB, 
	created_at_ms BIGINT NOT NULL, 
	principal TEXT, 
	data_lane_id BIGINT NOT NULL, 
	artifact_lane_id BIGINT NOT NULL, 
	CONSTRAINT pk_runs PRIMARY KEY (run_pk), 
	CONSTRAINT uq_runs_run_id UNIQUE (run_id), 
	CONSTRAINT fk_runs_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (workspace_id), 
	CONSTRAINT uq_runs_upstream_id UNIQUE (upstream_id)
);
INSERT INTO "runs" VALUES(1,'e4d33e8a9766404da1171629561da28b',1,'uncertain','','FINISHED',1700000000000,1700010000000,'mlflow-artifacts:/1/e4d33e8a9766404da1171629561da28b/artifacts','active',NULL,NULL,'proxy',NULL,'e4d33e8a9766404da1171629561da28b','history',NULL,1795376310694,NULL,3,4);
CREATE TABLE scorer_versions (
	scorer_pk BIGINT NOT NULL, 
	version INTEGER NOT NULL, 
	serialized_scorer TEXT NOT NULL, 
	creation_time_ms BIGINT NOT NULL, 
	principal TEXT, 
	CONSTRAINT pk_scorer_versions PRIMARY KEY (scorer_pk, version)
)
 WITHOUT ROWID

;
CREATE TABLE scorers (
	scorer_pk INTEGER NOT NULL, 
	scorer_id TEXT NOT NULL, 
	experiment_id BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT pk_scorers PRIMARY KEY (scorer_pk), 
	CONSTRAINT uq_scorers_experiment_id_name UNIQUE (experiment_id, name), 
	CONSTRAINT uq_scorers_scorer_id UNIQUE (scorer_id)
);
CREATE TABLE series (
	series_id INTEGER NOT NULL, 
	run_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	points BIGINT NOT NULL, 
	lowest_step BIGINT NOT NULL, 
	highest_step BIGINT NOT NULL, 
	lowest_timestamp_ms BIGINT NOT NULL, 
	highest_timestamp_ms BIGINT NOT NULL, 
	latest_step BIGINT NOT NULL, 
	latest_timestamp_ms BIGINT NOT NULL, 
	latest_value DOUBLE NOT NULL, 
	latest_is_nan SMALLINT NOT NULL, 
	CONSTRAINT pk_series PRIMARY KEY (series_id), 
	CONSTRAINT uq_series_run_pk_key UNIQUE (run_pk, "key")
);
INSERT INTO "series" VALUES(1,1,'loss',13,0,12,1700000000000,1700000000012,12,1700000000012,9.5,0);
CREATE TABLE spans (
	span_pk INTEGER NOT NULL, 
	trace_pk BIGINT NOT NULL, 
	span_id TEXT NOT NULL, 
	parent_span_id TEXT, 
	name TEXT NOT NULL, 
	type TEXT, 
	status TEXT NOT NULL, 
	start_time_ns BIGINT NOT NULL, 
	end_time_ns BIGINT, 
	model_name TEXT, 
	model_provider TEXT, 
	input_cost DOUBLE, 
	output_cost DOUBLE, 
	total_cost DOUBLE, 
	token_usage TEXT, 
	content TEXT NOT NULL, 
	CONSTRAINT pk_spans PRIMARY KEY (span_pk), 
	CONSTRAINT uq_spans_trace_pk_span_id UNIQUE (trace_pk, span_id)
);
CREATE TABLE tags (
	run_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_tags PRIMARY KEY (run_pk, "key")
)
 WITHOUT ROWID

;
INSERT INTO "tags" VALUES(1,'at_start','yes');
INSERT INTO "tags" VALUES(1,'mlflow.runName','uncertain');
INSERT INTO "tags" VALUES(1,'parked','xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx');
CREATE TABLE trace_links (
	trace_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	target TEXT NOT NULL, 
	CONSTRAINT pk_trace_links PRIMARY KEY (trace_id, kind, target)
)
 WITHOUT ROWID

;
CREATE TABLE trace_metadata (
	trace_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_trace_metadata PRIMARY KEY (trace_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE trace_tags (
	trace_pk BIGINT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_trace_tags PRIMARY KEY (trace_pk, "key")
)
 WITHOUT ROWID

;
CREATE TABLE traces (
	trace_pk INTEGER NOT NULL, 
	trace_id TEXT NOT NULL, 
	experiment_id BIGINT NOT NULL, 
	timestamp_ms BIGINT NOT NULL, 
	execution_time_ms BIGINT, 
	state TEXT NOT NULL, 
	client_request_id TEXT, 
	request_preview TEXT, 
	response_preview TEXT, 
	session_id TEXT, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	total_tokens BIGINT, 
	cache_read_input_tokens BIGINT, 
	cache_creation_input_tokens BIGINT, 
	principal TEXT, 
	CONSTRAINT pk_traces PRIMARY KEY (trace_pk), 
	CONSTRAINT uq_traces_trace_id UNIQUE (trace_id)
);
CREATE TABLE webhook_deliveries (
	delivery_pk INTEGER NOT NULL, 
	delivery_id TEXT NOT NULL, 
	webhook_pk BIGINT NOT NULL, 
	event TEXT NOT NULL, 
	body TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	not_before_ms BIGINT NOT NULL, 
	CONSTRAINT pk_webhook_deliveries PRIMARY KEY (delivery_pk), 
	CONSTRAINT uq_webhook_deliveries_delivery_id UNIQUE (delivery_id)
);
CREATE TABLE webhook_events (
	webhook_pk BIGINT NOT NULL, 
	position INTEGER NOT NULL, 
	event TEXT NOT NULL, 
	CONSTRAINT pk_webhook_events PRIMARY KEY (webhook_pk, position)
)
 WITHOUT ROWID

;
CREATE TABLE webhooks (
	webhook_pk INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	webhook_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	url TEXT NOT NULL, 
	description TEXT, 
	status TEXT NOT NULL, 
	secret TEXT, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	principal TEXT, 
	CONSTRAINT uq_webhooks_webhook_id UNIQUE (webhook_id)
);
CREATE TABLE workspaces (
	workspace_id INTEGER NOT NULL, 
	address TEXT NOT NULL, 
	first_delivery_ms BIGINT, 
	CONSTRAINT pk_workspaces PRIMARY KEY (workspace_id), 
	CONSTRAINT uq_workspaces_address UNIQUE (address)
);
INSERT INTO "workspaces" VALUES(1,'azureml://@HOST@/mlflow/v1.0/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator/providers/Microsoft.MachineLearningServices/workspaces/emulator',1795376311693);
CREATE INDEX ix_evaluation_dataset_experiments_experiment_id ON evaluation_dataset_experiments (experiment_id);
CREATE INDEX ix_evaluation_records_listing ON evaluation_records (dataset_pk, created_time_ms, record_id);
CREATE INDEX ix_traces_session ON traces (experiment_id, session_id);
CREATE INDEX ix_traces_listing ON traces (experiment_id, timestamp_ms);
CREATE INDEX ix_assessments_trace_pk ON assessments (trace_pk);
CREATE INDEX ix_trace_links_target ON trace_links (kind, target);
CREATE INDEX ix_webhook_events_event ON webhook_events (event);
CREATE INDEX ix_webhook_deliveries_webhook_pk ON webhook_deliveries (webhook_pk);
CREATE INDEX ix_webhook_deliveries_due ON webhook_deliveries (not_before_ms, delivery_pk);
CREATE INDEX ix_lanes_pending ON lanes (lane_id) WHERE settled_position < last_position;
CREATE INDEX ix_barriers_awaited ON barriers (awaited_lane_id);
CREATE INDEX ix_batches_lane_id ON batches (lane_id);
CREATE INDEX ix_parked_run_pk ON parked (run_pk);
CREATE INDEX ix_overflow_run_pk ON overflow (run_pk);
CREATE INDEX ix_dataset_inputs_dataset_pk ON dataset_inputs (dataset_pk);
CREATE INDEX ix_artifact_roots_model_pk ON artifact_roots (model_pk);
CREATE INDEX ix_artifact_roots_run_pk ON artifact_roots (run_pk);
CREATE INDEX ix_artifacts_spool_name ON artifacts (spool_name);
CREATE INDEX ix_logged_models_experiment_id ON logged_models (experiment_id);
CREATE INDEX ix_logged_models_source_run_id ON logged_models (source_run_id);
CREATE INDEX ix_model_versions_run_id ON model_versions (run_id);
CREATE INDEX ix_runs_listing ON runs (experiment_id, lifecycle_stage, start_time_ms, run_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('experiments',1);
COMMIT;
