"""The messages of A2A 1.0 on gRPC: names, numbers and types of `a2a.proto` (package lf.a2a.v1), as tables.

`dialects/protobuf.py` says how a line is read. A test compares the tables with the stubs of a2a-sdk.
"""

from __future__ import annotations

PACKAGE = "lf.a2a.v1"
FILE = "a2a.proto"
SERVICE = "A2AService"

MESSAGES: dict[str, str] = {
    # What is talked about (§4.1).
    "Task": "id=1 context_id=2 status=3:TaskStatus artifacts=4:Artifact* history=5:Message* metadata=6:Struct",
    "TaskStatus": "state=1:TaskState message=2:Message timestamp=3:Timestamp",
    "Message": """message_id=1 context_id=2 task_id=3 role=4:Role parts=5:Part* metadata=6:Struct
        extensions=7:string* reference_task_ids=8:string*""",
    "Part": """text=1|content raw=2:bytes|content url=3|content data=4:Value|content
        metadata=5:Struct filename=6 media_type=7""",
    "Artifact": "artifact_id=1 name=2 description=3 parts=4:Part* metadata=5:Struct extensions=6:string*",
    "TaskStatusUpdateEvent": "task_id=1 context_id=2 status=3:TaskStatus metadata=4:Struct",
    "TaskArtifactUpdateEvent": """task_id=1 context_id=2 artifact=3:Artifact append=4:bool last_chunk=5:bool
        metadata=6:Struct""",
    # Push (§4.3).
    "AuthenticationInfo": "scheme=1 credentials=2",
    "TaskPushNotificationConfig": "tenant=1 id=2 task_id=3 url=4 token=5 authentication=6:AuthenticationInfo",
    # The card (§4.4).
    "AgentInterface": "url=1 protocol_binding=2 tenant=3 protocol_version=4",
    "AgentProvider": "url=1 organization=2",
    "AgentExtension": "uri=1 description=2 required=3:bool params=4:Struct",
    "AgentCapabilities": """streaming=1:bool? push_notifications=2:bool? extensions=3:AgentExtension*
        extended_agent_card=4:bool?""",
    "AgentSkill": """id=1 name=2 description=3 tags=4:string* examples=5:string* input_modes=6:string*
        output_modes=7:string* security_requirements=8:SecurityRequirement*""",
    "AgentCardSignature": "protected=1 signature=2 header=3:Struct",
    "AgentCard": """name=1 description=2 supported_interfaces=3:AgentInterface* provider=4:AgentProvider version=5
        documentation_url=6? capabilities=7:AgentCapabilities security_schemes=8:map<SecurityScheme>
        security_requirements=9:SecurityRequirement* default_input_modes=10:string* default_output_modes=11:string*
        skills=12:AgentSkill* signatures=13:AgentCardSignature* icon_url=14?""",
    # Security (§4.5).
    "StringList": "list=1:string*",
    "SecurityRequirement": "schemes=1:map<StringList>",
    "SecurityScheme": """api_key_security_scheme=1:APIKeySecurityScheme|scheme
        http_auth_security_scheme=2:HTTPAuthSecurityScheme|scheme
        oauth2_security_scheme=3:OAuth2SecurityScheme|scheme
        open_id_connect_security_scheme=4:OpenIdConnectSecurityScheme|scheme
        mtls_security_scheme=5:MutualTlsSecurityScheme|scheme""",
    "APIKeySecurityScheme": "description=1 location=2 name=3",
    "HTTPAuthSecurityScheme": "description=1 scheme=2 bearer_format=3",
    "OAuth2SecurityScheme": "description=1 flows=2:OAuthFlows oauth2_metadata_url=3",
    "OpenIdConnectSecurityScheme": "description=1 open_id_connect_url=2",
    "MutualTlsSecurityScheme": "description=1",
    "OAuthFlows": """authorization_code=1:AuthorizationCodeOAuthFlow|flow
        client_credentials=2:ClientCredentialsOAuthFlow|flow implicit=3:ImplicitOAuthFlow|flow
        password=4:PasswordOAuthFlow|flow device_code=5:DeviceCodeOAuthFlow|flow""",
    "AuthorizationCodeOAuthFlow": """authorization_url=1 token_url=2 refresh_url=3 scopes=4:map<string>
        pkce_required=5:bool""",
    "ClientCredentialsOAuthFlow": "token_url=1 refresh_url=2 scopes=3:map<string>",
    "ImplicitOAuthFlow": "authorization_url=1 refresh_url=2 scopes=3:map<string>",
    "PasswordOAuthFlow": "token_url=1 refresh_url=2 scopes=3:map<string>",
    "DeviceCodeOAuthFlow": "device_authorization_url=1 token_url=2 refresh_url=3 scopes=4:map<string>",
    # What is asked and answered (§10.3).
    "SendMessageConfiguration": """accepted_output_modes=1:string*
        task_push_notification_config=2:TaskPushNotificationConfig history_length=3:int32? return_immediately=4:bool""",
    "SendMessageRequest": """tenant=1 message=2:Message configuration=3:SendMessageConfiguration
        metadata=4:Struct""",
    "SendMessageResponse": "task=1:Task|payload message=2:Message|payload",
    "StreamResponse": """task=1:Task|payload message=2:Message|payload
        status_update=3:TaskStatusUpdateEvent|payload artifact_update=4:TaskArtifactUpdateEvent|payload""",
    "GetTaskRequest": "tenant=1 id=2 history_length=3:int32?",
    "ListTasksRequest": """tenant=1 context_id=2 status=3:TaskState page_size=4:int32? page_token=5
        history_length=6:int32? status_timestamp_after=7:Timestamp include_artifacts=8:bool?""",
    "ListTasksResponse": "tasks=1:Task* next_page_token=2 page_size=3:int32 total_size=4:int32",
    "CancelTaskRequest": "tenant=1 id=2 metadata=3:Struct",
    "SubscribeToTaskRequest": "tenant=1 id=2",
    "GetTaskPushNotificationConfigRequest": "tenant=1 task_id=2 id=3",
    "DeleteTaskPushNotificationConfigRequest": "tenant=1 task_id=2 id=3",
    "ListTaskPushNotificationConfigsRequest": "task_id=1 page_size=2:int32 page_token=3 tenant=4",
    "ListTaskPushNotificationConfigsResponse": "configs=1:TaskPushNotificationConfig* next_page_token=2",
    "GetExtendedAgentCardRequest": "tenant=1",
}

# Names in the order of their numbers, from 0.
ENUMS: dict[str, str] = {
    "TaskState": """TASK_STATE_UNSPECIFIED TASK_STATE_SUBMITTED TASK_STATE_WORKING TASK_STATE_COMPLETED
        TASK_STATE_FAILED TASK_STATE_CANCELED TASK_STATE_INPUT_REQUIRED TASK_STATE_REJECTED TASK_STATE_AUTH_REQUIRED""",
    "Role": "ROLE_UNSPECIFIED ROLE_USER ROLE_AGENT",
}

# Method -> what it takes and what it gives; `stream` before what comes many times.
METHODS: dict[str, str] = {
    "SendMessage": "SendMessageRequest SendMessageResponse",
    "SendStreamingMessage": "SendMessageRequest stream StreamResponse",
    "GetTask": "GetTaskRequest Task",
    "ListTasks": "ListTasksRequest ListTasksResponse",
    "CancelTask": "CancelTaskRequest Task",
    "SubscribeToTask": "SubscribeToTaskRequest stream StreamResponse",
    "CreateTaskPushNotificationConfig": "TaskPushNotificationConfig TaskPushNotificationConfig",
    "GetTaskPushNotificationConfig": "GetTaskPushNotificationConfigRequest TaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs": (
        "ListTaskPushNotificationConfigsRequest ListTaskPushNotificationConfigsResponse"
    ),
    "DeleteTaskPushNotificationConfig": "DeleteTaskPushNotificationConfigRequest Empty",
    "GetExtendedAgentCard": "GetExtendedAgentCardRequest AgentCard",
}
