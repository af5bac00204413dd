"""The messages of A2A 0.3 on gRPC: names, numbers and types of its `a2a.proto` (package a2a.v1), as tables.

See `a2a_v1/schema.py`.
"""

from __future__ import annotations

PACKAGE = "a2a.v1"
FILE = "a2a_v0_3.proto"
SERVICE = "A2AService"

MESSAGES: dict[str, str] = {
    "Task": "id=1 context_id=2 status=3:TaskStatus artifacts=4:Artifact* history=5:Message* metadata=6:Struct",
    "TaskStatus": "state=1:TaskState update=2:Message>message timestamp=3:Timestamp",
    "Message": """message_id=1 context_id=2 task_id=3 role=4:Role content=5:Part* metadata=6:Struct
        extensions=7:string*""",
    "Part": "text=1|part file=2:FilePart|part data=3:DataPart|part metadata=4:Struct",
    "FilePart": "file_with_uri=1|file file_with_bytes=2:bytes|file mime_type=3 name=4",
    "DataPart": "data=1:Struct",
    "Artifact": "artifact_id=1 name=3 description=4 parts=5:Part* metadata=6:Struct extensions=7:string*",
    "TaskStatusUpdateEvent": "task_id=1 context_id=2 status=3:TaskStatus final=4:bool metadata=5:Struct",
    "TaskArtifactUpdateEvent": """task_id=1 context_id=2 artifact=3:Artifact append=4:bool last_chunk=5:bool
        metadata=6:Struct""",
    "AuthenticationInfo": "schemes=1:string* credentials=2",
    "PushNotificationConfig": "id=1 url=2 token=3 authentication=4:AuthenticationInfo",
    "SendMessageConfiguration": """accepted_output_modes=1:string* push_notification=2:PushNotificationConfig
        history_length=3:int32 blocking=4:bool""",
    "SendMessageRequest": "request=1:Message>message configuration=2:SendMessageConfiguration metadata=3:Struct",
    "SendMessageResponse": "task=1:Task|payload msg=2:Message|payload>message",
    "StreamResponse": """task=1:Task|payload msg=2:Message|payload>message
        status_update=3:TaskStatusUpdateEvent|payload artifact_update=4:TaskArtifactUpdateEvent|payload""",
    "GetTaskRequest": "name=1 history_length=2:int32",
    "CancelTaskRequest": "name=1",
    "TaskSubscriptionRequest": "name=1",
    "TaskPushNotificationConfig": "name=1 push_notification_config=2:PushNotificationConfig",
    "CreateTaskPushNotificationConfigRequest": "parent=1 config_id=2 config=3:TaskPushNotificationConfig",
    "GetTaskPushNotificationConfigRequest": "name=1",
    "DeleteTaskPushNotificationConfigRequest": "name=1",
    "ListTaskPushNotificationConfigRequest": "parent=1 page_size=2:int32 page_token=3",
    "ListTaskPushNotificationConfigResponse": "configs=1:TaskPushNotificationConfig* next_page_token=2",
    "GetAgentCardRequest": "",
    "AgentCard": """name=1 description=2 url=3 provider=4:AgentProvider version=5 documentation_url=6
        capabilities=7:AgentCapabilities security_schemes=8:map<SecurityScheme> security=9:Security*
        default_input_modes=10:string* default_output_modes=11:string* skills=12:AgentSkill*
        supports_authenticated_extended_card=13:bool preferred_transport=14 additional_interfaces=15:AgentInterface*
        protocol_version=16 signatures=17:AgentCardSignature* icon_url=18""",
    "AgentInterface": "url=1 transport=2",
    "AgentProvider": "url=1 organization=2",
    "AgentCapabilities": "streaming=1:bool push_notifications=2:bool extensions=3:AgentExtension*",
    "AgentExtension": "uri=1 description=2 required=3:bool params=4:Struct",
    "AgentSkill": """id=1 name=2 description=3 tags=4:string* examples=5:string* input_modes=6:string*
        output_modes=7:string* security=8:Security*""",
    "AgentCardSignature": "protected=1 signature=2 header=3:Struct",
    "StringList": "list=1:string*",
    "Security": "schemes=1:map<StringList>",
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
        password=4:PasswordOAuthFlow|flow""",
    "AuthorizationCodeOAuthFlow": "authorization_url=1 token_url=2 refresh_url=3 scopes=4:map<string>",
    "ClientCredentialsOAuthFlow": "token_url=1 refresh_url=2 scopes=3:map<string>",
    "ImplicitOAuthFlow": "authorization_url=1 refresh_url=2 scopes=3:map<string>",
    "PasswordOAuthFlow": "token_url=1 refresh_url=2 scopes=3:map<string>",
}

ENUMS: dict[str, str] = {
    "TaskState": """TASK_STATE_UNSPECIFIED TASK_STATE_SUBMITTED TASK_STATE_WORKING TASK_STATE_COMPLETED
        TASK_STATE_FAILED TASK_STATE_CANCELLED TASK_STATE_INPUT_REQUIRED TASK_STATE_REJECTED
        TASK_STATE_AUTH_REQUIRED""",
    "Role": "ROLE_UNSPECIFIED ROLE_USER ROLE_AGENT",
}

METHODS: dict[str, str] = {
    "SendMessage": "SendMessageRequest SendMessageResponse",
    "SendStreamingMessage": "SendMessageRequest stream StreamResponse",
    "GetTask": "GetTaskRequest Task",
    "CancelTask": "CancelTaskRequest Task",
    "TaskSubscription": "TaskSubscriptionRequest stream StreamResponse",
    "CreateTaskPushNotificationConfig": "CreateTaskPushNotificationConfigRequest TaskPushNotificationConfig",
    "GetTaskPushNotificationConfig": "GetTaskPushNotificationConfigRequest TaskPushNotificationConfig",
    "ListTaskPushNotificationConfig": "ListTaskPushNotificationConfigRequest ListTaskPushNotificationConfigResponse",
    "DeleteTaskPushNotificationConfig": "DeleteTaskPushNotificationConfigRequest Empty",
    "GetAgentCard": "GetAgentCardRequest AgentCard",
}
# Those that 1.0 calls otherwise.
OPERATIONS: dict[str, str] = {
    "TaskSubscription": "SubscribeToTask",
    "ListTaskPushNotificationConfig": "ListTaskPushNotificationConfigs",
    "GetAgentCard": "GetExtendedAgentCard",
}
